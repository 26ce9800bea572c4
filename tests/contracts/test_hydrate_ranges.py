"""A range is read to its end, verified, and narrowed to the guilty; what is left of it is kept whatever has gone."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from aws_kinesis_agg.aggregator import RecordAggregator

from stream_app.local.server.faults import Trim, inject
from stream_app.model.record import Code, Failure, Record
from stream_app.model.segment import token
from stream_app.recovery.dead_letters import DeadLetter
from stream_app.recovery.hydrate.batch import hydrate_batch
from stream_app.recovery.hydrate.trial import TrialFactory, pipeline_trials
from tests import samples
from tests.contracts.hydrating import (
    ALL_DONE,
    STREAM,
    Meddled,
    again,
    dependencies,
    event,
    everything,
    failures,
    of_function,
    of_pipe,
    own,
    put_all,
    records,
    refusal,
)

CONSUMER = "air-delivery"


def trial_factory() -> TrialFactory:
    return pipeline_trials(samples.registry(), seen_ids=16, max_bytes=samples.MAX_BYTES)


def reading(at: int, value: float = 1.0, **more: Any) -> bytes:
    fields = {"id": f"r{at}", "device": "Dongsi", "time": samples.START, "value": value, **more}
    return samples.as_json("reading", fields)


def runs(s3: Any) -> list[tuple[str, str, str, int]]:
    [record] = records(s3, CONSUMER)
    return [(run.outcome.value, run.first, run.last, run.count) for run in record.runs]


@pytest.mark.parametrize("page", [1, 4, 500])
def test_a_range_of_many_pages_is_read_to_its_end_and_no_further(kinesis: Any, s3: Any, page: int) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(30)])
    answer, _ = hydrate_batch(event(of_pipe(dead_letters[3:27])), dependencies(kinesis, s3, page=page))
    assert answer == ALL_DONE
    assert [one.data for one in failures(s3, CONSUMER)] == [b"%d" % at for at in range(3, 27)]
    [record] = records(s3, CONSUMER)
    assert (record.state, record.size, record.found, record.records) == ("hydrated", 24, 24, 24)


def test_a_range_in_a_closed_shard(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(9)])
    shards = {one["ShardId"]: one for one in kinesis.list_shards(StreamName=STREAM)["Shards"]}
    hashes = shards[dead_letters[0].shard]["HashKeyRange"]
    middle = (int(hashes["StartingHashKey"]) + int(hashes["EndingHashKey"])) // 2
    kinesis.split_shard(StreamName=STREAM, ShardToSplit=dead_letters[0].shard, NewStartingHashKey=str(middle))
    assert hydrate_batch(event(of_pipe(dead_letters)), dependencies(kinesis, s3, page=2))[0] == ALL_DONE
    assert len(failures(s3, CONSUMER)) == 9


def test_ranges_that_lie_close_share_a_page(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(40)])
    counting = Meddled(kinesis)
    each = [of_pipe([one]) for one in dead_letters]
    assert hydrate_batch(event(*each), dependencies(counting, s3))[0] == ALL_DONE
    assert counting.calls.count("get_records") == 1
    assert [one.data for one in failures(s3, CONSUMER)] == [b"%d" % at for at in range(40)]
    assert len(records(s3, CONSUMER)) == 40


def aggregate(payloads: Sequence[bytes]) -> bytes:
    packed = RecordAggregator()
    for at, data in enumerate(payloads):
        packed.add_user_record(f"station {at}", data)
    contents: tuple[str, str, bytes] = packed.clear_and_get().get_contents()
    return contents[2]


def test_aggregated_and_binary_records_are_taken_apart_and_kept_as_they_are(kinesis: Any, s3: Any) -> None:
    binary = bytes(range(256))
    dead_letters = put_all(
        kinesis, [b"plain", aggregate([binary, b"", b'{"a":1}']), b"\xf3\x89\x9a\xc2 not one"]
    )
    assert hydrate_batch(event(of_pipe(dead_letters)), dependencies(kinesis, s3))[0] == ALL_DONE
    found = failures(s3, CONSUMER)
    assert [one.data for one in found] == [b"plain", binary, b"", b'{"a":1}', b"\xf3\x89\x9a\xc2 not one"]
    assert [one.sub for one in found] == [0, 0, 1, 2, 0]
    assert [one.partition_key for one in found[1:4]] == ["station 0", "station 1", "station 2"]
    [record] = records(s3, CONSUMER)
    assert (record.state, record.found, record.records) == ("hydrated", 3, 5)


@pytest.mark.parametrize(
    ("size", "state"), [(1, "hydrated"), (2, "hydrated"), (4, "hydrated"), (5, "partial")]
)
def test_the_count_is_verified_against_records_or_user_records(
    kinesis: Any, s3: Any, size: int, state: str
) -> None:
    """Fewer than lie there were in the batch where the source filters; more than lie there is a loss."""
    dead_letters = put_all(kinesis, [b"plain", aggregate([b"1", b"2", b"3"])])
    assert hydrate_batch(event(of_function(dead_letters, size)), dependencies(kinesis, s3))[0] == ALL_DONE
    [record] = records(s3, "air-map")
    assert record.state == state
    assert ("names 5" in record.reason) == (state == "partial")
    assert len(failures(s3, "air-map")) == 4


def trim(first: DeadLetter) -> None:
    assert inject(Trim(STREAM, sequence=first.sequence)) > 0


def test_of_a_range_that_has_left_in_part_the_rest_is_hydrated(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(10)])
    trim(dead_letters[6])
    body = of_pipe(dead_letters[2:9])
    assert hydrate_batch(event(body), dependencies(kinesis, s3, page=2))[0] == ALL_DONE
    assert [one.data for one in failures(s3, CONSUMER)] == [b"6", b"7", b"8"]
    [record] = records(s3, CONSUMER)
    assert (record.state, record.found, record.size) == ("partial", 3, 7)
    assert "3 of 7" in record.reason
    before = everything(s3)
    trim(dead_letters[9])
    assert hydrate_batch(event(body), dependencies(kinesis, s3))[0] == ALL_DONE
    assert everything(s3) == before, "a second delivery that finds less takes nothing back"


def test_of_a_range_that_has_left_the_metadata_stays(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(10)])
    trim(dead_letters[6])
    body = of_pipe(dead_letters[2:5])
    answer, done = hydrate_batch(event(body), dependencies(kinesis, s3))
    assert answer == ALL_DONE
    assert not failures(s3, CONSUMER)
    [record] = records(s3, CONSUMER)
    assert (record.state, record.found, record.size) == ("expired", 0, 3)
    assert msgspec.json.decode(record.message) == body
    assert len(done.expired) == 1


class Refusing:
    """A Kinesis that takes no sequence number of what it has trimmed, as AWS may; it still reads by time."""

    def __init__(self, kinesis: Any, below: str) -> None:
        self._kinesis, self._below = kinesis, below

    def __getattr__(self, name: str) -> Any:
        return getattr(self._kinesis, name)

    def get_shard_iterator(self, **request: Any) -> Any:
        asked = request.get("StartingSequenceNumber")
        if asked is not None and int(asked) < int(self._below):
            raise refusal("InvalidArgumentException", "GetShardIterator")
        return self._kinesis.get_shard_iterator(**request)


@pytest.mark.parametrize("page", [2, 500])
def test_a_beginning_that_is_refused_is_looked_for_by_time(kinesis: Any, s3: Any, page: int) -> None:
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(10)])
    trim(dead_letters[6])
    body = of_pipe([_now(one) for one in dead_letters[2:9]])
    refusing = Refusing(kinesis, dead_letters[6].sequence)
    assert hydrate_batch(event(body), dependencies(refusing, s3, page=page))[0] == ALL_DONE
    assert [one.data for one in failures(s3, CONSUMER)] == [b"6", b"7", b"8"]


def _now(one: DeadLetter) -> DeadLetter:
    return msgspec.structs.replace(one, arrived=round(time.time() * 1000))


def test_a_range_that_never_was_waits(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"1", b"2"])
    beyond = msgspec.structs.replace(dead_letters[1], sequence=str(int(dead_letters[1].sequence) + 10**6))
    answer, done = hydrate_batch(event(of_pipe([beyond])), dependencies(kinesis, s3))
    assert answer == again(0)
    assert beyond.sequence in done.failed[0]
    [record] = records(s3, CONSUMER)
    assert record.state == "waiting"


def test_an_end_that_is_not_there_makes_it_partial(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"1", b"2"])
    beyond = msgspec.structs.replace(dead_letters[1], sequence=str(int(dead_letters[1].sequence) + 10**6))
    assert hydrate_batch(event(of_pipe([dead_letters[0], beyond])), dependencies(kinesis, s3))[0] == ALL_DONE
    [record] = records(s3, CONSUMER)
    assert (record.state, record.found) == ("partial", 2)


@pytest.mark.parametrize("page", [1, 2, 500])
def test_a_range_is_narrowed_to_the_guilty_and_the_innocent_are_marked(
    kinesis: Any, s3: Any, page: int
) -> None:
    good = [reading(at) for at in range(6)]
    payloads = [*good[:2], reading(90, value=500.0), b"\xff", *good[2:], good[0], reading(91, value=101.0)]
    dead_letters = put_all(kinesis, payloads)
    answer, _ = hydrate_batch(
        event(of_pipe(dead_letters)), dependencies(kinesis, s3, trial_factory=trial_factory, page=page)
    )
    assert answer == ALL_DONE
    found = failures(s3, CONSUMER)
    assert [(one.data, one.code, one.stage) for one in found] == [
        (payloads[2], "RULE_BROKEN", "verify"),
        (payloads[3], "UNDECODABLE", "decode"),
        (payloads[-1], "RULE_BROKEN", "verify"),
    ]
    assert found[0].event == "reading"
    assert found[0].schema
    at = [token(one.position) for one in dead_letters]
    assert runs(s3) == [
        ("innocent", at[0], at[1], 2),
        ("failed", at[2], at[3], 2),
        ("innocent", at[4], at[8], 5),
        ("failed", at[9], at[9], 1),
    ]


def test_guilty_user_records_of_an_aggregate_are_told_from_their_siblings(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [aggregate([reading(1), b"?", reading(2)])])
    assert (
        hydrate_batch(event(of_pipe(dead_letters)), dependencies(kinesis, s3, trial_factory=trial_factory))[0]
        == ALL_DONE
    )
    assert [(one.sub, one.data) for one in failures(s3, CONSUMER)] == [(1, b"?")]
    assert [count for *_, count in runs(s3)] == [1, 1, 1]


@pytest.mark.parametrize("page", [2, 500])
def test_where_none_is_guilty_the_fault_was_elsewhere_and_all_are_failures(
    kinesis: Any, s3: Any, page: int
) -> None:
    payloads = [reading(at) for at in range(5)]
    dead_letters = put_all(kinesis, payloads)
    assert (
        hydrate_batch(
            event(of_pipe(dead_letters)), dependencies(kinesis, s3, trial_factory=trial_factory, page=page)
        )[0]
        == ALL_DONE
    )
    found = failures(s3, CONSUMER)
    assert [one.data for one in found] == payloads
    assert {(one.stage, one.code) for one in found} == {("delivery", "DELIVERY_FAILED")}
    assert [outcome for outcome, *_ in runs(s3)] == ["failed"]


def test_each_range_is_judged_by_itself(kinesis: Any, s3: Any) -> None:
    """What one range holds must not make a record of another a repeat of it, nor the order of two letters matter."""
    dead_letters = put_all(kinesis, [reading(1), b"?", reading(1), b"?"])
    seen: list[int] = []

    def counting() -> TrialFactory:
        def begin() -> Any:
            seen.append(0)
            return trial_factory()()

        return begin

    bodies: list[Any] = [of_pipe(dead_letters[:2]), of_pipe(dead_letters[2:])]
    assert hydrate_batch(event(*bodies), dependencies(kinesis, s3, trial_factory=counting))[0] == ALL_DONE
    assert len(seen) == 2
    assert [one.data for one in failures(s3, CONSUMER)] == [b"?", b"?"]


def test_a_judge_that_fails_makes_only_ranges_wait(kinesis: Any, s3: Any) -> None:
    dead_letters = put_all(kinesis, [b"1", b"2"])

    def broken() -> TrialFactory:
        raise RuntimeError("no schema to be found")

    bodies: list[Any] = [own(dead_letters[0]), of_pipe(dead_letters)]
    answer, done = hydrate_batch(event(*bodies), dependencies(kinesis, s3, trial_factory=broken))
    assert answer == again(1)
    assert "no schema" in done.failed[1]
    assert len(failures(s3)) == 1


@pytest.mark.parametrize("failing", [True, False])
def test_of_a_large_range_a_few_pages_are_held(kinesis: Any, s3: Any, failing: bool) -> None:
    """What was read is stored before much more of it is read; only where none is guilty is it read twice."""
    dead_letters = put_all(kinesis, [b"%d" % at for at in range(24)])
    log: list[str] = []

    class Logged:
        def __getattr__(self, name: str) -> Any:
            def call(**request: Any) -> Any:
                if name == "put_object" and request["Key"].startswith("failures/"):
                    log.append("stored")
                return getattr(s3, name)(**request)

            return call

    def watching() -> TrialFactory:
        def begin() -> Any:
            def trial(records: Sequence[Record]) -> dict[int, Any]:
                log.append("read")
                assert len(records) <= 3
                return {0: Failure(0, "verify", Code.RULE_BROKEN, "as the test says")} if failing else {}

            return trial

        return begin

    hydrate_batch(
        event(of_pipe(dead_letters)), dependencies(kinesis, Logged(), trial_factory=watching, page=3)
    )
    if failing:
        assert log == ["read"] * 3 + ["stored"] * 3 + ["read", "stored"] * 5
    else:
        assert log == ["read"] * 8 + ["read", "stored", "stored", "stored"] * 8
