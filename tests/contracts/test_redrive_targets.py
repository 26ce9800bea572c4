"""Bus and stream as targets: within the limits of requests, and an answer for every record."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError
from hypothesis import given
from hypothesis import strategies as st

from stream_app.aws.request_sizes import BUS_BYTES, BUS_ENTRIES
from stream_app.recovery.redrive.message import Lineage
from stream_app.recovery.redrive.plan.cases import draft_of
from stream_app.recovery.redrive.targets.aws import BusTarget, StreamTarget
from stream_app.recovery.redrive.targets.target import (
    Delivered,
    Draft,
    EncodedRecord,
    Refused,
    Retryable,
    SenderRejected,
    Unsupported,
)
from stream_app.recovery.repair.file import parse_repair
from tests import samples

REGISTRY = samples.registry()
NOW = datetime(2026, 1, 1, tzinfo=UTC)
LINEAGE = Lineage("failures/air/x.json", 2)


def draft(data: bytes, **repair: Any) -> Draft:
    made = draft_of(data, "A", LINEAGE, parse_repair(repair) if repair else None, REGISTRY)
    assert isinstance(made, Draft)
    return made


class Service:
    """Answers for each entry as the script says; keeps the sizes of requests."""

    def __init__(self, script: Callable[[int], dict[str, Any]] = lambda _number: {}) -> None:
        self.requests: list[list[Any]] = []
        self._script, self._count = script, 0

    def put_events(self, *, Entries: list[Any]) -> dict[str, Any]:
        return {"Entries": self._answers(Entries)}

    def put_records(self, *, StreamName: str, Records: list[Any]) -> dict[str, Any]:
        assert StreamName == "devices"
        return {"Records": self._answers(Records)}

    def _answers(self, bodies: Sequence[Any]) -> list[dict[str, Any]]:
        self.requests.append(list(bodies))
        found = [self._script(self._count + at) for at in range(len(bodies))]
        self._count += len(bodies)
        return found


def bus(service: Any) -> BusTarget:
    return BusTarget(service, "air", REGISTRY)


def stream(service: Any) -> StreamTarget:
    return StreamTarget(service, "devices", REGISTRY, "us-east-1", lambda: NOW)


def parcels(target: Any, count: int, size: int = 0) -> list[EncodedRecord]:
    data = samples.as_json("reading", {"id": "1", "device": "A", "time": 1, "note": "." * size})
    made = target.encode(draft(data))
    assert isinstance(made, EncodedRecord)
    return [made] * count


@given(st.integers(0, 35), st.sampled_from([0, 20_000, 120_000]))
def test_no_request_is_larger_than_the_service_takes(count: int, size: int) -> None:
    service = Service()
    target = bus(service)
    some = parcels(target, count, size)
    assert list(target.send(some)) == [Delivered({})] * count
    assert sum(len(request) for request in service.requests) == count
    assert all(1 <= len(request) <= BUS_ENTRIES for request in service.requests)
    assert all(len(request) * some[0].size <= BUS_BYTES for request in service.requests)


def test_each_entry_has_its_own_answer() -> None:
    answers: list[dict[str, Any]] = [
        {"EventId": "e-1"},
        {"ErrorCode": "ThrottlingException", "ErrorMessage": "slow down"},
        {"ErrorCode": "InternalFailure"},
        {"ErrorCode": "MalformedDetail", "ErrorMessage": "no"},
    ]
    target = bus(Service(lambda number: answers[number]))
    assert list(target.send(parcels(target, 4))) == [
        Delivered({"id": "e-1"}),
        Retryable("ThrottlingException: slow down", doubt=False),
        Retryable("InternalFailure", doubt=True),
        Refused("MalformedDetail: no"),
    ]
    taken = {"ShardId": "shardId-1", "SequenceNumber": "42"}
    there = stream(Service(lambda _number: taken))
    assert list(there.send(parcels(there, 1))) == [Delivered({"shard": "shardId-1", "sequence": "42"})]


def _client_error(code: str, http: int) -> ClientError:
    said: Any = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": http}}
    return ClientError(said, "PutRecords")


@pytest.mark.parametrize(
    ("error", "wanted"),
    [
        (_client_error("ThrottlingException", 400), Retryable("ThrottlingException", doubt=False)),
        (_client_error("InternalFailure", 500), Retryable("InternalFailure", doubt=True)),
        (_client_error("AccessDeniedException", 400), SenderRejected("AccessDeniedException")),
        (_client_error("ResourceNotFoundException", 400), SenderRejected("ResourceNotFoundException")),
        (ReadTimeoutError(endpoint_url="x"), Retryable("ReadTimeoutError", doubt=True)),
        (ConnectTimeoutError(endpoint_url="x"), Retryable("ConnectTimeoutError", doubt=True)),
    ],
)
@pytest.mark.parametrize("make", [bus, stream])
def test_a_request_that_fails_is_an_answer_for_all_of_it(make: Any, error: Exception, wanted: Any) -> None:
    def refuse(_number: int) -> dict[str, Any]:
        raise error

    target = make(Service(refuse))
    assert list(target.send(parcels(target, 3))) == [wanted] * 3


def test_a_bus_entry_comes_from_where_the_first_one_came() -> None:
    came = {
        "detail-type": "reading",
        "source": "stream-app.devices.v2",
        "id": "e-9",
        "resources": ["A", "arn:x"],
    }
    made = bus(Service()).encode(draft(json.dumps({**came, "detail": {"device": "A", "time": 1}}).encode()))
    assert isinstance(made, EncodedRecord)
    assert made.body == {
        "Source": "stream-app.devices.v2",
        "DetailType": "reading",
        "Resources": ["A", "arn:x", LINEAGE.resource],
        "Detail": '{"device":"A","time":1,"id":"e-9"}',
        "EventBusName": "air",
    }
    aws = {**came, "source": "aws.events", "detail": {"device": "A"}}
    made = bus(Service()).encode(draft(json.dumps(aws).encode()))
    assert isinstance(made, EncodedRecord)
    assert made.body["Source"] == "stream-app.devices"  # PutEvents takes no source of AWS


@pytest.mark.parametrize("data", [b"\xff", b"[]", b'{"no": "type"}', samples.GARBAGE[2]])
def test_what_has_no_type_does_not_fit_a_bus_and_fits_a_stream_as_it_is(data: bytes) -> None:
    assert isinstance(bus(Service()).encode(draft(data)), Unsupported)
    made = stream(Service()).encode(draft(data))
    assert isinstance(made, EncodedRecord)
    assert (made.body, made.deduplicated, made.has_lineage) == (
        {"Data": data, "PartitionKey": "A"},
        False,
        False,
    )


def test_what_is_too_large_does_not_fit() -> None:
    data = samples.as_json("reading", {"device": "A", "note": "." * 300_000})
    assert isinstance(bus(Service()).encode(draft(data)), Unsupported)
    assert isinstance(stream(Service()).encode(draft(data)), EncodedRecord)
    assert isinstance(stream(Service()).encode(draft(b"." * 1_048_576)), Unsupported)


def test_avro_goes_back_onto_the_stream_as_it_came_unless_it_was_repaired() -> None:
    data = samples.as_avro({"id": "1", "device": "A", "time": 1, "value": 5.0}, samples.SCHEMAS["reading"])
    whole = stream(Service()).encode(draft(data))
    assert isinstance(whole, EncodedRecord)
    assert (whole.body["Data"], whole.deduplicated, whole.has_lineage) == (data, True, False)
    repaired = stream(Service()).encode(draft(data, steps=[{"do": "set", "field": "value", "value": 6}]))
    assert isinstance(repaired, EncodedRecord)
    document = json.loads(repaired.body["Data"])
    assert (document["detail"]["value"], document["resources"]) == (6, ["A", LINEAGE.resource])
    assert (repaired.deduplicated, repaired.has_lineage) == (True, True)


def test_a_repair_that_changes_the_device_changes_the_partition_key() -> None:
    data = samples.as_json("reading", {"device": "X", "time": 1})
    made = stream(Service()).encode(draft(data, steps=[{"do": "set", "field": "device", "value": "B"}]))
    assert isinstance(made, EncodedRecord)
    assert (made.key, made.body["PartitionKey"]) == ("B", "B")
