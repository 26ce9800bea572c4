"""The latest value of every device: the newest row wins, whatever the order and however often it is written."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from boto3.dynamodb.types import TypeDeserializer
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.event import Event, Window
from stream_app.model.record import Batch, Code, Position
from stream_app.model.segment import Segment
from stream_app.sinks.dynamodb import LatestSink, newest, standing
from tests.unit.test_sink_segment import ARRIVED, BASE, SHARD, record, segment

TABLE = "latest"
EVENTS = {
    "air_quality": Event(name="air_quality", key="station"),
    "parcel": Event(name="parcel", key="id", window=Window(("pm25",), 4, time="promised")),
}


@pytest.fixture
def dynamodb(aws: Callable[[str], Any]) -> Any:
    client = aws("dynamodb")
    client.create_table(
        TableName=TABLE,
        KeySchema=[{"AttributeName": "device", "KeyType": "HASH"}],
        AttributeDefinitions=[{"AttributeName": "device", "AttributeType": "S"}],
        BillingMode="PAY_PER_REQUEST",
    )
    return client


@pytest.fixture
def sink(dynamodb: Any) -> Iterator[LatestSink]:
    made = LatestSink(dynamodb, TABLE, EVENTS, threads=3)
    yield made
    made.close()


def items(dynamodb: Any) -> dict[str, dict[str, Any]]:
    plain = TypeDeserializer().deserialize
    found = [{k: plain(v) for k, v in item.items()} for item in dynamodb.scan(TableName=TABLE)["Items"]]
    return {item["device"]: item for item in found}


def of(rows: list[tuple[str | None, int | None, Any]], start: int = 0, **more: Any) -> Segment:
    """A segment of air_quality rows (station, event time, value) that all passed."""
    stations, times, values = zip(*rows, strict=True)
    columns = {
        "station": np.fromiter(stations, dtype=object, count=len(rows)),
        "time": np.array(
            [np.datetime64("NaT") if t is None else np.datetime64(t, "ms") for t in times]
        ).astype("datetime64[ms]"),
        "value": np.fromiter(values, dtype=object, count=len(rows)),
        **{name: np.asarray(column) for name, column in more.items()},
    }
    batch = Batch("air_quality", columns, np.arange(len(rows)))
    records = [record(start + at) for at in range(len(rows))]
    return Segment("air", "devices", SHARD, records, {"air_quality": batch}, [], np.zeros(0, np.int64))


def test_an_item_contains_device_position_times_and_values(dynamodb: Any, sink: LatestSink) -> None:
    more: dict[str, Any] = {
        "pm25": [1.5], "gone": [np.nan], "none": [np.inf], "tiny": [1e-200], "n": [7], "ok": [True],
        "at": np.array([ARRIVED * 1000], dtype="datetime64[us]"), "never": np.array(["NaT"], dtype="datetime64[ms]"),
        "window.pm25": np.zeros((1, 3)), "size": ["reserved"], "score": [0.25], "anomaly": [False],
    }  # fmt: skip
    nested = {"list": [1, 0.5, None, {"x": float("nan")}], "name": "x"}
    assert sink.write(of([("Dongsi", ARRIVED - 5, nested)], **more)) == []
    assert items(dynamodb) == {
        "air_quality#Dongsi": {
            "device": "air_quality#Dongsi",
            "event": "air_quality",
            "time": "2016-11-30T23:59:59.995Z",
            "arrived": "2016-12-01T00:00:00.000Z",
            "shard": SHARD,
            "sequence": str(BASE),
            "sub": 0,
            "standing": standing(ARRIVED - 5, Position(SHARD, str(BASE), 0)),
            "values": {
                "station": "Dongsi",
                "time": "2016-11-30T23:59:59.995Z",
                "value": {"list": [Decimal(1), Decimal("0.5"), None, {}], "name": "x"},
                "pm25": Decimal("1.5"),
                "n": Decimal(7),
                "ok": True,
                "at": "2016-12-01T00:00:00.000Z",
                "size": "reserved",
                "score": Decimal("0.25"),
                "anomaly": False,
            },
        }
    }


ROWS = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C"]), st.integers(0, 5), st.integers()), min_size=1, max_size=25
)


@given(ROWS)
def test_newest_selects_the_last_row_with_the_latest_event_time_per_device(
    rows: list[tuple[Any, ...]],
) -> None:
    one = of([(station, time, 0) for station, time, _ in rows])
    times = np.array([time for _, time, _ in rows])
    chosen = newest(one.passed["air_quality"], "station", times).tolist()
    expected = {
        station: max((t, at) for at, (s, t, _) in enumerate(rows) if s == station) for station, *_ in rows
    }
    assert chosen == sorted(at for _, at in expected.values())


NUMBERS = st.tuples(st.integers(-(2**62), 2**62), st.integers(0, 10**56), st.integers(0, 10**6))


@given(NUMBERS, NUMBERS)
def test_sort_keys_order_by_time_then_position(
    one: tuple[int, int, int], other: tuple[int, int, int]
) -> None:
    texts = [standing(time, Position(SHARD, str(seq), sub)) for time, seq, sub in (one, other)]
    assert (texts[0] < texts[1]) == (one < other)


def test_the_newest_row_wins_in_any_order_with_repeats(dynamodb: Any, sink: LatestSink) -> None:
    rng = random.Random(5)
    parts = [
        of(
            [(rng.choice("ABC"), ARRIVED + rng.randrange(6), part * 10 + at) for at in range(4)],
            start=part * 4,
        )
        for part in range(8)
    ]
    for part in parts:
        sink.write(part)
    in_order = items(dynamodb)
    for _ in range(3):
        rng.shuffle(parts)
        for device in in_order:
            dynamodb.delete_item(TableName=TABLE, Key={"device": {"S": device}})
        for part in [*parts, *parts]:
            sink.write(part)
        assert items(dynamodb) == in_order


def test_a_row_does_not_overwrite_its_own_correction(dynamodb: Any, sink: LatestSink) -> None:
    sink.write(of([("A", ARRIVED, 1)]))
    sink.write(of([("A", ARRIVED, 2)]))
    assert items(dynamodb)["air_quality#A"]["values"]["value"] == 1


def test_a_row_without_event_time_uses_its_arrival_time_and_one_without_device_is_skipped(
    dynamodb: Any, sink: LatestSink
) -> None:
    sink.write(of([("A", None, 1), (None, ARRIVED, 2)]))
    assert [(item["device"], item["time"]) for item in items(dynamodb).values()] == [
        ("air_quality#A", "2016-12-01T00:00:00.000Z")
    ]


def test_the_window_defines_the_event_time_field(dynamodb: Any, sink: LatestSink) -> None:
    one = segment(["parcel"])
    part = one.passed["parcel"]
    later = part.with_columns({"promised": np.array([ARRIVED + 60_000], dtype="datetime64[ms]")})
    sink.write(dataclasses.replace(one, passed={"parcel": later}))
    assert items(dynamodb)["parcel#Dongsi/0"]["time"] == "2016-12-01T00:01:00.000Z"


def test_rows_that_dynamodb_cannot_store_are_rejected_and_the_rest_is_stored(
    dynamodb: Any, sink: LatestSink
) -> None:
    rows: list[tuple[str | None, int | None, Any]] = [
        ("k" * 2100, ARRIVED, 0),
        ("A", ARRIVED, "x" * 500_000),
        ("B", ARRIVED, 1),
    ]
    refused = sink.write(of(rows))
    assert [(failure.row, failure.code, failure.event) for failure in refused] == [
        (0, Code.SINK_REJECTED, "air_quality"),
        (1, Code.SINK_REJECTED, "air_quality"),
    ]
    assert list(items(dynamodb)) == ["air_quality#B"]


def test_an_error_of_one_item_is_raised_after_all_items_were_attempted(dynamodb: Any) -> None:
    class Failing:
        def put_item(self, **request: Any) -> Any:
            if request["Item"]["device"]["S"].endswith("#A"):
                raise ClientError({"Error": {"Code": "ThrottlingException"}}, "PutItem")
            return dynamodb.put_item(**request)

    failing: Any = Failing()
    sink = LatestSink(failing, TABLE, EVENTS, threads=2)
    with pytest.raises(ClientError, match="Throttling"):
        sink.write(of([(name, ARRIVED, 1) for name in "ABCDE"]))
    sink.close()
    assert sorted(items(dynamodb)) == [f"air_quality#{name}" for name in "BCDE"]
