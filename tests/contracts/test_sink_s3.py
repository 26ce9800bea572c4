"""Segments on S3: created once, identical after a second run; corrections are kept."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from botocore.exceptions import ClientError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream_app.aws.objects import CORRECTED, DIGEST, RECORDS, Written, head, put_exact, put_new
from stream_app.errors import TransientError
from stream_app.model.record import Code
from stream_app.model.segment import Segment, store, token
from stream_app.sinks.s3 import ManifestSink, ParquetSink, event_key, manifest, manifest_key
from tests.unit.test_sink_segment import BASE, PLACES, SHARD, segment, segments

BUCKET = "events-of-the-test"


def everything(s3: Any) -> dict[str, tuple[bytes, dict[str, str], str]]:
    """Every object: its bytes, metadata and ETag."""
    found = {}
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET):
        for item in page.get("Contents", ()):
            answer = s3.get_object(Bucket=BUCKET, Key=item["Key"])
            found[item["Key"]] = (answer["Body"].read(), answer["Metadata"], answer["ETag"])
    return found


def write(s3: Any, one: Segment) -> Segment:
    return store(one, [ParquetSink(s3, BUCKET, {"air_quality": "c0ffee"}), ManifestSink(s3, BUCKET)])


def test_each_event_has_a_file_named_by_arrival_shard_and_first_position(s3: Any) -> None:
    one = segment(["parcel", "air_quality", "failed", "air_quality", "repeated"])
    write(s3, one)
    found = everything(s3)
    name = f"date=2016-12-01/hour=00/{SHARD}-{BASE}.parquet"
    air, parcel = f"events/air_quality/{name}", f"events/parcel/{name}"
    assert sorted(found) == [air, parcel, f"segments/air/{SHARD}/{BASE}.json"]
    rows = pq.read_table(pa.BufferReader(found[air][0]))
    assert rows["sequence"].to_pylist() == [str(BASE + 1), str(BASE + 3)]
    metadata = {
        k.decode(): v.decode() for k, v in pq.read_schema(pa.BufferReader(found[air][0])).metadata.items()
    }
    assert {
        "event": "air_quality",
        "consumer": "air",
        "stream": "devices",
        "schema": "c0ffee",
    }.items() <= metadata.items()


def test_the_manifest_records_the_outcome_of_every_record(s3: Any) -> None:
    one = segment(["parcel", "air_quality", "failed", "air_quality", "repeated", "failed"])
    write(s3, one)
    body = json.loads(everything(s3)[manifest_key(one)][0])
    assert body == {
        "kind": "stream-app.segment",
        "version": 1,
        "consumer": "air",
        "stream": "devices",
        "shard": SHARD,
        "first": {"position": str(BASE), "arrived": one.records[0].arrived},
        "last": {"position": str(BASE + 5), "arrived": one.records[-1].arrived},
        "count": 6,
        "stored": {
            "air_quality": {"count": 2, "key": event_key(one, "air_quality")},
            "parcel": {"count": 1, "key": event_key(one, "parcel")},
        },
        "anomalies": 0,
        "repeated": [str(BASE + 4)],
        "parked": {"SCHEMA_VIOLATION": [str(BASE + 2), str(BASE + 5)]},
    }


@given(one=segments)
def test_a_manifest_accounts_for_every_record_once(one: Segment) -> None:
    body = manifest(one)
    named = [*body["repeated"], *(at for parked in body["parked"].values() for at in parked)]
    stored = [token(at) for part in one.passed.values() for at in one.positions(part.rows.tolist())]
    assert sorted(named + stored) == sorted(token(at) for at in one.positions(range(len(one.records))))
    assert body["count"] == len(named) + sum(event["count"] for event in body["stored"].values())


@given(places=st.lists(st.sampled_from(PLACES), min_size=1, max_size=12), start=st.integers(0, 3))
@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_second_run_stores_the_same_bytes(s3: Any, places: list[str], start: int) -> None:
    one = segment(places, start=start)
    write(s3, one)
    before = everything(s3)
    write(s3, segment(places, start=start))
    assert everything(s3) == before


def changed(one: Segment) -> Segment:
    """The same records, calculated anew with another result."""
    part = one.passed["air_quality"]
    again = part.with_columns({"aqi": part["aqi"] + 1})
    return dataclasses.replace(one, passed={**one.passed, "air_quality": again})


def test_another_result_replaces_the_file(s3: Any) -> None:
    one = segment(["air_quality", "failed"])
    write(s3, one)
    write(s3, changed(one))
    body = everything(s3)[event_key(one, "air_quality")][0]
    assert pq.read_table(pa.BufferReader(body))["aqi"].to_pylist() == [1]


def test_a_corrected_file_is_kept(s3: Any) -> None:
    one = segment(["air_quality", "failed"])
    write(s3, one)
    key = event_key(one, "air_quality")
    s3.put_object(Bucket=BUCKET, Key=key, Body=b"corrected", Metadata={DIGEST: "other", CORRECTED: "true"})
    before = everything(s3)
    write(s3, one)
    write(s3, changed(one))
    assert everything(s3) == before


def test_a_segment_with_only_failures_has_a_manifest_and_no_file(s3: Any) -> None:
    one = segment(["failed", "repeated"])
    write(s3, one)
    assert list(everything(s3)) == [manifest_key(one)]


def test_a_row_that_parquet_cannot_store_is_listed_as_failed_in_the_manifest(s3: Any) -> None:
    one = segment(["air_quality", "air_quality"])
    part = one.passed["air_quality"]
    broken = part.with_columns({"id": np.array(["fine", "\ud800"], dtype=object)})
    after = write(s3, dataclasses.replace(one, passed={"air_quality": broken}))
    assert [(failure.row, failure.code) for failure in after.failed] == [(1, Code.SINK_REJECTED)]
    found = everything(s3)
    assert pq.read_table(pa.BufferReader(found[event_key(one, "air_quality")][0])).num_rows == 1
    assert json.loads(found[manifest_key(one)][0])["parked"] == {"SINK_REJECTED": [str(BASE + 1)]}
    nothing = part.with_columns({"id": np.array(["\ud800", "\ud800"], dtype=object)})
    other = dataclasses.replace(segment(["air_quality"] * 2, start=9), passed={"air_quality": nothing})
    write(s3, other)
    assert event_key(other, "air_quality") not in everything(s3)


class Meddling:
    """An S3 client that runs a concurrent action before chosen puts."""

    def __init__(self, s3: Any, acts: list[Callable[[], Any] | None]) -> None:
        self._s3, self._acts, self.puts = s3, acts, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._s3, name)

    def put_object(self, **request: Any) -> Any:
        self.puts += 1
        act = self._acts.pop(0) if self._acts else None
        if act is not None:
            act()
        return self._s3.put_object(**request)


def put(s3: Any, body: bytes, digest: str, records: int = 1, *, may_shrink: bool = True) -> Written:
    return put_exact(
        s3,
        bucket=BUCKET,
        key="k",
        body=body,
        digest=digest,
        content_type="text/plain",
        records=records,
        may_shrink=may_shrink,
    )


def test_put_exact_returns_its_outcome(s3: Any) -> None:
    assert [put(s3, b"1", "a"), put(s3, b"other bytes, same rows", "a"), put(s3, b"2", "b")] == [
        Written.CREATED,
        Written.KEPT,
        Written.REPLACED,
    ]
    assert everything(s3)["k"][:2] == (b"2", {DIGEST: "b", RECORDS: "1"})
    s3.put_object(Bucket=BUCKET, Key="k", Body=b"3", Metadata={DIGEST: "b2", CORRECTED: "1"})
    assert put(s3, b"2", "b") is Written.LEFT
    assert everything(s3)["k"][0] == b"3"


def test_a_shorter_segment_does_not_replace_a_longer_one(s3: Any) -> None:
    assert put(s3, b"3 of them", "a", 3, may_shrink=False) is Written.CREATED
    assert put(s3, b"2", "b", 2, may_shrink=False) is Written.LONGER
    assert put(s3, b"4, by the clock", "c", 4, may_shrink=False) is Written.REPLACED
    assert put(s3, b"2, by the records", "b", 2) is Written.REPLACED
    assert everything(s3)["k"][:2] == (b"2, by the records", {DIGEST: "b", RECORDS: "2"})


def test_a_stale_worker_does_not_overwrite_a_longer_segment(s3: Any) -> None:
    longer, shorter = segment(["air_quality", "failed", "air_quality"]), segment(["air_quality", "failed"])
    write(s3, longer)
    before = everything(s3)
    write(s3, dataclasses.replace(shorter, by_clock=True))
    assert everything(s3) == before


def test_a_correction_between_read_and_replace_is_kept(s3: Any) -> None:
    put(s3, b"1", "a")

    def correct() -> None:
        s3.put_object(Bucket=BUCKET, Key="k", Body=b"corrected", Metadata={CORRECTED: "1"})

    assert put(Meddling(s3, [None, correct]), b"2", "b") is Written.LEFT
    assert everything(s3)["k"][0] == b"corrected"


def test_an_object_deleted_before_the_replace_is_created_again(s3: Any) -> None:
    put(s3, b"1", "a")
    gone = Meddling(s3, [None, lambda: s3.delete_object(Bucket=BUCKET, Key="k")])
    assert put(gone, b"2", "b") is Written.CREATED
    assert gone.puts == 3


def test_two_writers_of_the_same_rows_agree(s3: Any) -> None:
    assert put(Meddling(s3, [lambda: put(s3, b"1", "a")]), b"1", "a") is Written.KEPT


def conflict() -> None:
    raise ClientError({"Error": {"Code": "ConditionalRequestConflict"}}, "PutObject")


def test_a_conflict_restarts_the_write_a_limited_number_of_times(s3: Any) -> None:
    passing = Meddling(s3, [conflict, conflict])
    assert put(passing, b"1", "a") is Written.CREATED
    lasting = Meddling(s3, [conflict] * 100)
    with pytest.raises(TransientError):
        put(lasting, b"2", "b")
    assert lasting.puts <= 20
    assert everything(s3)["k"][0] == b"1"
    meddled: Any = Meddling(s3, [conflict] * 100)
    with pytest.raises(TransientError):
        put_new(meddled, {"Bucket": BUCKET, "Key": "new", "Body": b""})


def test_other_errors_are_raised(s3: Any) -> None:
    with pytest.raises(ClientError, match="NoSuchBucket"):
        put_exact(
            s3,
            bucket="none",
            key="k",
            body=b"",
            digest="",
            content_type="text/plain",
            records=1,
            may_shrink=True,
        )
    assert head(s3, BUCKET, "none") is None
