"""SQS with the moto patches, in-process."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
from botocore.exceptions import ClientError

from stream_app.local.moto_patches import clock

if TYPE_CHECKING:
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import (
        DeleteMessageBatchRequestEntryTypeDef,
        MessageAttributeValueTypeDef,
        MessageTypeDef,
        SendMessageBatchRequestEntryTypeDef,
    )

    from stream_app.aws.clients import ClientFactory


@pytest.fixture
def sqs(aws: ClientFactory) -> SQSClient:
    return aws("sqs")


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    ticking = [clock.now_ms()]
    monkeypatch.setattr(clock, "now_ms", lambda: ticking[0])
    return ticking


def queue(sqs: SQSClient, name: str = "queue", **attributes: str) -> str:
    wanted: Any = attributes
    return sqs.create_queue(QueueName=name, Attributes=wanted)["QueueUrl"]


def fifo(sqs: SQSClient, name: str = "queue.fifo", **attributes: str) -> str:
    return queue(sqs, name, FifoQueue="true", **attributes)


def receive(sqs: SQSClient, url: str, count: int = 10, **how: Any) -> list[MessageTypeDef]:
    return sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=count, **how).get("Messages", [])


def bodies(messages: list[MessageTypeDef]) -> list[str]:
    return [message["Body"] for message in messages]


def counts(sqs: SQSClient, url: str) -> list[int]:
    names: list[Any] = [f"ApproximateNumberOfMessages{which}" for which in ("", "NotVisible", "Delayed")]
    found = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names)["Attributes"]
    return [int(found[name]) for name in names]


def delete(sqs: SQSClient, url: str, *messages: MessageTypeDef) -> None:
    for message in messages:
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


def refusal(act: Callable[[], object]) -> str:
    with pytest.raises(ClientError) as refused:
        act()
    return refused.value.response["Error"]["Code"]


def test_a_message_is_hidden_until_its_visibility_timeout(sqs: SQSClient, now: list[int]) -> None:
    url = queue(sqs, VisibilityTimeout="30")
    sqs.send_message(QueueUrl=url, MessageBody="a")
    first = receive(sqs, url)
    assert (bodies(first), receive(sqs, url), counts(sqs, url)) == (["a"], [], [0, 1, 0])
    now[0] += 30_000
    again = receive(sqs, url, MessageSystemAttributeNames=["ApproximateReceiveCount"])
    assert again[0]["MessageId"] == first[0]["MessageId"]
    assert again[0]["Attributes"]["ApproximateReceiveCount"] == "2"
    delete(sqs, url, again[0], again[0])
    now[0] += 30_000
    assert (receive(sqs, url), counts(sqs, url)) == ([], [0, 0, 0])


def test_visibility_can_be_changed_only_in_flight(sqs: SQSClient, now: list[int]) -> None:
    url = queue(sqs)
    sqs.send_message(QueueUrl=url, MessageBody="a")

    def change(handle: str, seconds: int) -> None:
        sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=seconds)

    handle = receive(sqs, url)[0]["ReceiptHandle"]
    change(handle, 60)
    now[0] += 59_000
    assert receive(sqs, url) == []
    change(handle, 0)
    assert "MessageNotInflight" in refusal(lambda: change(handle, 5))
    assert bodies(receive(sqs, url)) == ["a"]
    assert refusal(lambda: change("x", 5)) == "ReceiptHandleIsInvalid"
    assert refusal(lambda: delete(sqs, url, {"ReceiptHandle": "x"})) == "ReceiptHandleIsInvalid"


def test_a_delayed_message_becomes_visible_later(sqs: SQSClient, now: list[int]) -> None:
    url = queue(sqs)
    sqs.send_message(QueueUrl=url, MessageBody="later", DelaySeconds=10)
    assert (receive(sqs, url), counts(sqs, url)) == ([], [0, 0, 1])
    now[0] += 11_000
    assert bodies(receive(sqs, url)) == ["later"]


def test_a_message_received_too_often_goes_to_the_dead_letter_queue(sqs: SQSClient, now: list[int]) -> None:
    dead = queue(sqs, "dead")
    arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
    url = queue(sqs, RedrivePolicy=policy, VisibilityTimeout="1")
    sent = sqs.send_message(QueueUrl=url, MessageBody="bad")["MessageId"]
    for _ in range(2):
        assert bodies(receive(sqs, url)) == ["bad"]
        now[0] += 1_000
    sqs.send_message(QueueUrl=url, MessageBody="good")
    assert bodies(receive(sqs, url)) == ["good"]
    assert [message["MessageId"] for message in receive(sqs, dead)] == [sent]


def test_an_expired_message_is_dropped_and_does_not_block_others(sqs: SQSClient, now: list[int]) -> None:
    url = queue(sqs, MessageRetentionPeriod="60")
    sqs.send_message(QueueUrl=url, MessageBody="old")
    # moto uses its own clock for the sent timestamp.
    now[0] += 61_000
    assert receive(sqs, url) == []
    assert counts(sqs, url) == [0, 0, 0]


def test_a_message_in_flight_blocks_its_group(sqs: SQSClient, now: list[int]) -> None:
    url = fifo(sqs, ContentBasedDeduplication="true", VisibilityTimeout="30")
    for body in ("a1", "b1", "a2", "b2", "a3"):
        sqs.send_message(QueueUrl=url, MessageBody=body, MessageGroupId=body[0])
    first = receive(sqs, url, 2)
    assert bodies(first) == ["a1", "b1"]
    assert receive(sqs, url) == []
    delete(sqs, url, first[0])
    assert bodies(receive(sqs, url, 1)) == ["a2"]
    now[0] += 30_000
    assert bodies(receive(sqs, url)) == ["b1", "a2", "b2", "a3"]


def test_deduplication_lasts_five_minutes_even_for_deleted_messages(sqs: SQSClient, now: list[int]) -> None:
    url = fifo(sqs)

    def send(deduplication: str) -> None:
        sqs.send_message(
            QueueUrl=url, MessageBody="a", MessageGroupId="g", MessageDeduplicationId=deduplication
        )

    send("1")
    delete(sqs, url, *receive(sqs, url))
    now[0] += 299_999
    send("1")
    assert receive(sqs, url) == []
    now[0] += 1
    send("1")
    assert len(receive(sqs, url)) == 1


def test_deduplication_can_be_per_group(sqs: SQSClient) -> None:
    url = fifo(sqs, DeduplicationScope="messageGroup", FifoThroughputLimit="perMessageGroupId")
    for group in ("g", "h", "g"):
        sqs.send_message(QueueUrl=url, MessageBody="a", MessageGroupId=group, MessageDeduplicationId="1")
    assert len(receive(sqs, url)) == 2


def test_sequence_numbers_of_a_fifo_queue_increase(sqs: SQSClient) -> None:
    url = fifo(sqs, ContentBasedDeduplication="true")
    sent = [
        sqs.send_message(QueueUrl=url, MessageBody=str(n), MessageGroupId="g", MessageDeduplicationId=str(n))
        for n in range(12)
    ]
    numbers = [message["SequenceNumber"] for message in sent]
    assert {len(number) for number in numbers} == {20}
    assert numbers == sorted(set(numbers))


def test_a_fifo_topic_delivers_in_order_exactly_once(aws: ClientFactory, sqs: SQSClient) -> None:
    url = fifo(sqs)
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns = aws("sns")
    topic = sns.create_topic(Name="topic.fifo", Attributes={"FifoTopic": "true"})["TopicArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes={"RawMessageDelivery": "true"})
    for body in ("1", "2", "2", "3"):
        sns.publish(TopicArn=topic, Message=body, MessageGroupId="g", MessageDeduplicationId=body)
    assert bodies(receive(sqs, url)) == ["1", "2", "3"]


def test_a_purged_queue_is_empty_and_usable(sqs: SQSClient) -> None:
    url = queue(sqs)
    sqs.send_message(QueueUrl=url, MessageBody="a")
    sqs.purge_queue(QueueUrl=url)
    assert counts(sqs, url) == [0, 0, 0]
    sqs.send_message(QueueUrl=url, MessageBody="b")
    assert bodies(receive(sqs, url)) == ["b"]


def test_requested_attributes_are_returned_and_kept_in_the_message(sqs: SQSClient, now: list[int]) -> None:
    url = queue(sqs, VisibilityTimeout="1")
    attributes: dict[str, MessageAttributeValueTypeDef] = {
        name: {"DataType": "String", "StringValue": name} for name in ("one", "two")
    }
    sqs.send_message(QueueUrl=url, MessageBody="a", MessageAttributes=attributes)
    assert "MessageAttributes" not in receive(sqs, url)[0]
    now[0] += 1_000
    assert set(receive(sqs, url, MessageAttributeNames=["one"])[0]["MessageAttributes"]) == {"one"}
    now[0] += 1_000
    assert set(receive(sqs, url, MessageAttributeNames=["All"])[0]["MessageAttributes"]) == {"one", "two"}


def test_a_long_poll_returns_messages_sent_meanwhile(sqs: SQSClient) -> None:
    url = queue(sqs)
    got: list[str] = []
    waiter = threading.Thread(target=lambda: got.extend(bodies(receive(sqs, url, WaitTimeSeconds=20))))
    waiter.start()
    sqs.send_message(QueueUrl=url, MessageBody="a")
    waiter.join(15)
    assert got == ["a"]


def test_concurrent_senders_and_receivers_deliver_each_message_once(sqs: SQSClient) -> None:
    url = queue(sqs)
    senders, each = 4, 60
    got: Counter[str] = Counter()
    sent = threading.Event()

    def send(who: int) -> None:
        for turn in range(0, each, 10):
            entries: list[SendMessageBatchRequestEntryTypeDef] = [
                {"Id": str(n), "MessageBody": f"{who}-{turn + n}"} for n in range(10)
            ]
            sqs.send_message_batch(QueueUrl=url, Entries=entries)

    def take() -> None:
        while True:
            last_look = sent.is_set()
            messages = receive(sqs, url)
            got.update(bodies(messages))
            if messages:
                entries: list[DeleteMessageBatchRequestEntryTypeDef] = [
                    {"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)
                ]
                assert not sqs.delete_message_batch(QueueUrl=url, Entries=entries).get("Failed")
            elif last_look:
                return

    takers = [threading.Thread(target=take) for _ in range(4)]
    writers = [threading.Thread(target=send, args=(who,)) for who in range(senders)]
    for thread in (*takers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    sent.set()
    for thread in takers:
        thread.join()
    assert got == Counter(f"{who}-{n}" for who in range(senders) for n in range(each))
    assert counts(sqs, url) == [0, 0, 0]
