"""Properties of a pipe with a queue source, without AWS: acceptance and order within a group."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from stream_app.aws.retry import Policy
from stream_app.local.pipes.counters import Counters
from stream_app.local.pipes.patterns import compile_filters, compile_template
from stream_app.local.pipes.pipe_route import PipeRoute
from stream_app.local.pipes.queue_pipe import QueuePipe
from stream_app.local.pipes.queue_reader import Queue
from stream_app.local.pipes.targets import UnresolvedParameter

AT_ONCE = Policy(attempts=3, base_ms=0, cap_ms=0)


class RejectingTarget:
    """A target that rejects an entry as often as the entry specifies; None means always."""

    max_batch = 500

    def __init__(self) -> None:
        self.taken: list[str] = []
        self._tries: dict[str, int] = {}

    def prepare(self, seen: Mapping[str, Any], data: bytes) -> Any:
        if seen["body"].get("unresolved"):
            raise UnresolvedParameter("as asked")
        return seen["messageId"], seen["body"]["refused"]

    def send(self, entries: Sequence[Any]) -> list[int]:
        failed = []
        for place, (name, refused) in enumerate(entries):
            self._tries[name] = self._tries.get(name, 0) + 1
            if refused is None or self._tries[name] <= refused:
                failed.append(place)
            else:
                self.taken.append(name)
        return failed


MESSAGES = st.lists(
    st.tuples(
        st.sampled_from("abc"),
        st.sampled_from([0, 0, 1, 2, 3, None]),
        st.integers(0, 9).map(lambda n: n == 0),
    ),
    max_size=10,
)


def body_of(raw: Mapping[str, Any]) -> bytes:
    return str(raw["body"]).encode()


def handled(messages: list[Mapping[str, Any]], *, fifo: bool) -> tuple[list[str], list[str], dict[str, int]]:
    target, counters = RejectingTarget(), Counters()
    route = PipeRoute(
        name="p",
        arn="arn",
        payload="body",
        body=body_of,
        matches=compile_filters([]),
        transform=compile_template("<$.body>", "body", body_of, {}),
        target=target,
    )
    queue = Queue("url", "arn", "us-east-1", fifo=fifo, max_receive_count=5)
    pipe = QueuePipe(route, queue, counters, random.Random(1), AT_ONCE)
    done = pipe.handle(messages, threading.Event())
    return [message["MessageId"] for message in done], target.taken, counters.snapshot()


def message(n: int, group: str | None, refused: int | None, unresolved: bool) -> Mapping[str, Any]:
    attributes = {"MessageGroupId": group} if group else {}
    body = json.dumps({"refused": refused, "unresolved": unresolved})
    return {"MessageId": str(n), "ReceiptHandle": f"r-{n}", "Body": body, "Attributes": attributes}


@given(MESSAGES)
def test_a_message_is_done_if_and_only_if_it_was_accepted(asked: list[tuple[str, int | None, bool]]) -> None:
    messages = [message(n, None, refused, unresolved) for n, (_, refused, unresolved) in enumerate(asked)]
    done, taken, counts = handled(messages, fifo=False)
    able = [
        str(n)
        for n, (_, refused, unresolved) in enumerate(asked)
        if not unresolved and refused is not None and refused < AT_ONCE.attempts
    ]
    assert sorted(done) == sorted(taken) == sorted(able)
    assert counts["delivered"] == len(able)


@given(MESSAGES)
def test_a_group_is_sent_in_order_and_waits_for_failed_messages(
    asked: list[tuple[str, int | None, bool]],
) -> None:
    messages = [
        message(n, group, refused, unresolved) for n, (group, refused, unresolved) in enumerate(asked)
    ]
    done, taken, _ = handled(messages, fifo=True)
    for group in "abc":
        mine = [(str(n), refused, bad) for n, (g, refused, bad) in enumerate(asked) if g == group]
        able = []
        for name, refused, bad in mine:
            if bad or refused is None or refused >= AT_ONCE.attempts:
                break
            able.append(name)
        names = {name for name, _, _ in mine}
        assert [name for name in taken if name in names] == able
        assert sorted(name for name in done if name in names) == sorted(able)


def test_received_messages_are_sent_despite_a_stop() -> None:
    stop = threading.Event()
    stop.set()
    target, counters = RejectingTarget(), Counters()
    transform = compile_template("<$.body>", "body", body_of, {})
    route = PipeRoute("p", "arn", "body", body_of, compile_filters([]), transform, target)
    queue = Queue("url", "arn", "us-east-1", fifo=False, max_receive_count=None)
    pipe = QueuePipe(
        route, queue, counters, random.Random(1), Policy(attempts=3, base_ms=10**9, cap_ms=10**9)
    )
    messages = [message(0, None, 1, False), message(1, None, 0, False)]
    assert {m["MessageId"] for m in pipe.handle(messages, stop)} == {"0", "1"}
