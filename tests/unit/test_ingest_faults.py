"""Properties of the fault plan: unchanged readings, additional faults, determinism and expected counts."""

from __future__ import annotations

import gzip
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.errors import ConfigError
from stream_app.ingest import faults
from stream_app.ingest.datasets import WINTER, readings
from stream_app.ingest.envelope import AVRO, AVRO_PAST, ENVELOPE, GZIP, JSON, REPEATED, OutgoingRecord
from stream_app.ingest.faults import DIRECT, FAULTS, LIMIT, RATES, expected, plan
from stream_app.model.event import Event
from stream_app.model.record import Code

AIR = Event("air_quality", key="station", sent="sent_at")
PARCEL = Event("parcel", key="parcel", sent="sent_at")
ALL_FORMS = (JSON, GZIP, AVRO, AVRO_PAST)
START = datetime(2016, 12, 1, tzinfo=UTC)
SMALL = 1_000  # bytes
few = settings(deadline=None, max_examples=40)
often = {**dict.fromkeys(RATES, 0.04), DIRECT: 0.3}

seeds = st.integers(0, 2**32)
mixes = st.dictionaries(st.sampled_from(list(RATES)), st.floats(0, 1 / len(RATES)))


def make_rows(count: int) -> list[dict[str, Any]]:
    return [
        {
            "id": f"s{n % 7}/{n}",
            "station": f"s{n % 7}",
            "time": START + timedelta(hours=n // 7),
            "pm25": float(n),
            "wind_direction": "N",
        }
        for n in range(count)
    ]


def fields(sending: OutgoingRecord) -> Mapping[str, Any]:
    assert not isinstance(sending.detail, bytes)
    return sending.detail


def data(sending: OutgoingRecord) -> bytes:
    assert isinstance(sending.detail, bytes)
    return sending.detail


def planned(count: int = 300, seed: int = 1, **options: Any) -> list[OutgoingRecord]:
    options = {"rates": often, "encodings": ALL_FORMS, "limit": SMALL, **options}
    return list(plan(make_rows(count), AIR, seed=seed, **options))


@given(seed=seeds, rates=mixes, forms=st.sets(st.sampled_from(ALL_FORMS)))
@few
def test_readings_are_unchanged_and_in_order(seed: int, rates: dict[str, float], forms: set[str]) -> None:
    sendings = planned(100, seed, rates=rates, encodings=forms)
    good = [sending for sending in sendings if sending.expected is None]
    assert [sending.detail for sending in good] == make_rows(100)
    assert all(
        sending.event == "air_quality" and sending.key == fields(sending)["station"] for sending in good
    )
    assert {sending.encoding for sending in good} <= {ENVELOPE, *forms}
    assert all((sending.route == "stream") == (sending.encoding != ENVELOPE) for sending in good)


@given(seed=seeds, rates=mixes)
@few
def test_the_plan_is_deterministic(seed: int, rates: dict[str, float]) -> None:
    assert planned(100, seed, rates=rates) == planned(100, seed, rates=rates)


def test_different_seeds_give_different_plans() -> None:
    assert planned(seed=1) != planned(seed=2)


@given(seed=seeds, rates=mixes)
@few
def test_expected_counts_match_the_plan(seed: int, rates: dict[str, float]) -> None:
    sendings = planned(100, seed, rates=rates)
    counts = expected(iter(sendings))
    assert counts[None] == 100
    assert counts.total() == len(sendings)
    assert all(counts[code] == sum(s.expected == code for s in sendings) for code in (*Code, REPEATED))


@given(seed=seeds)
@few
def test_faults_have_unique_ids(seed: int) -> None:
    sendings = planned(seed=seed)
    bad = [s for s in sendings if isinstance(s.expected, Code) and not isinstance(s.detail, bytes)]
    ids = Counter(fields(s)["id"] for s in bad)
    assert not ids.keys() & {row["id"] for row in make_rows(300)}
    assert set(ids.values()) <= {1}


@given(seed=seeds)
@few
def test_a_repeat_follows_its_original_within_the_maximum_distance(seed: int) -> None:
    past: list[OutgoingRecord] = []
    for sending in planned(seed=seed):
        if sending.expected == REPEATED:
            same = sending._replace(expected=None)
            assert any(same == earlier._replace(time=same.time) for earlier in past[-61:])
        elif sending.expected is None:
            past.append(sending)


@given(seed=seeds)
@few
def test_a_device_uses_one_route_only(seed: int) -> None:
    good = [s for s in planned(seed=seed) if s.expected in (None, REPEATED)]
    ways = {(s.key, s.route) for s in good}
    assert len(ways) == len({key for key, _ in ways})


@given(seed=seeds)
@few
def test_the_times_of_a_plan_ascend(seed: int) -> None:
    times = [sending.time for sending in planned(seed=seed)]
    assert all(a is not None and b is not None and a <= b for a, b in itertools.pairwise(times))


def test_each_fault_has_its_documented_form() -> None:
    found = {}
    for fault in FAULTS:
        bad = [s for s in planned(20, rates={fault.name: 1.0}) if s.expected is not None]
        assert len(bad) == 20
        assert {s.expected for s in bad} == {fault.code}
        found[fault.name] = bad[0]
    assert found["unknown-type"].event == "air_quality_prototype"
    assert fields(found["wrong-type"])["pm25"] == "high"
    assert "time" not in fields(found["time-absent"])
    assert fields(found["time-null"])["time"] is None
    assert fields(found["negative"])["pm25"] == -5
    assert fields(found["from-the-future"])["time"].year == 2100
    assert fields(found["no-such-wind"])["wind_direction"] == "XYZ"
    assert data(found["unknown-fingerprint"])[:2] == b"\xc3\x01"
    with pytest.raises(UnicodeDecodeError):
        data(found["undecodable"]).decode()
    assert not data(found["undecodable"]).startswith((b"\x1f\x8b", b"\xc3\x01", b"{"))
    with pytest.raises(EOFError):
        gzip.decompress(data(found["truncated-gzip"]))


@pytest.mark.parametrize("limit", [1_000, LIMIT])
def test_too_large_exceeds_the_limit_and_a_gzip_bomb_only_decompressed(limit: int) -> None:
    large = planned(1, rates={"too-large": 1.0}, limit=limit)[1].detail
    assert not isinstance(large, bytes)
    assert sum(len(str(value)) for value in large.values()) > limit
    bomb = planned(1, rates={"gzip-bomb": 1.0}, limit=limit)[1].detail
    assert isinstance(bomb, bytes)
    assert len(bomb) < limit / 4
    assert len(zlib.decompressobj(wbits=31).decompress(bomb, limit + 1)) > limit


def test_event_specific_faults_occur_only_for_their_event() -> None:
    rows = [{"id": str(n), "parcel": "P", "time": START, "status": "signed"} for n in range(300)]
    sendings = list(plan(rows, PARCEL, seed=1, rates=often, limit=SMALL))
    assert not {Code.RULE_BROKEN, Code.CALCULATION_FAILED} & expected(sendings).keys()
    wrong = [s for s in sendings if s.expected == Code.SCHEMA_VIOLATION]
    assert wrong
    assert all(s.detail["parcel"] == ["P"] for s in wrong if not isinstance(s.detail, bytes))


def test_default_rates_on_the_winter_data_set() -> None:
    sendings = list(plan(readings(WINTER), AIR, encodings=ALL_FORMS))
    counts = expected(sendings)
    assert counts[None] == 25_920
    assert 0.01 < 1 - counts[None] / counts.total() < 0.02
    not_of_data = {Code.SINK_REJECTED, Code.PROCESS_KILLED, Code.TIMED_OUT}
    assert set(counts) == {None, REPEATED, *Code} - not_of_data
    direct = Counter((s.key, s.encoding) for s in sendings if s.expected is None and s.encoding != ENVELOPE)
    assert {key for key, _ in direct} == {"Huairou"}
    assert {form for _, form in direct} == set(ALL_FORMS)


def test_without_rates_all_readings_go_by_the_bus() -> None:
    sendings = planned(rates={})
    assert [s.detail for s in sendings] == make_rows(300)
    assert {s.route for s in sendings} == {"bus"}


@pytest.mark.parametrize("rates", [{"nonsense": 0.1}, {"negative": -0.1}, {"negative": 0.6, REPEATED: 0.6}])
def test_invalid_rates_are_rejected(rates: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        plan([], AIR, rates=rates)


def test_the_documented_table_matches_the_code() -> None:
    rows = re.findall(r"^\| ([\d.]+) % \| ([a-z-]+) \| .* \| (\w+) \|$", faults.__doc__ or "", re.MULTILINE)
    documented = {name: (round(float(rate) / 100, 6), code) for rate, name, code in rows}
    coded = {fault.name: (fault.rate, fault.code.value) for fault in FAULTS}
    assert documented == {**coded, REPEATED: (RATES[REPEATED], REPEATED)}


@given(seed=seeds, rates=mixes)
@few
def test_each_record_has_the_row_of_its_reading(seed: int, rates: dict[str, float]) -> None:
    sendings = planned(100, seed, rates=rates)
    assert [sending.row for sending in sendings if sending.expected is None] == list(range(1, 101))
    rows = make_rows(100)
    for sending in sendings:
        assert sending.row is not None
        assert sending.key == rows[sending.row - 1]["station"]


def test_a_reading_without_a_key_has_an_empty_key() -> None:
    rows: list[dict[str, object]] = [{"id": "1", "station": None, "time": START}, {"id": "2", "time": START}]
    sendings = list(plan(rows, AIR, rates={}))
    assert [sending.key for sending in sendings] == ["", ""]
    assert all(sending.unsendable == "the key is empty" for sending in sendings)
