"""The monthly cost estimate: hand-computed items, and properties of any estimate."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from stream_app.cli.main import app
from stream_app.costs.bill import HOURS, SECONDS, bill, total
from stream_app.costs.drivers import changes
from stream_app.costs.load import MODES, ON_DEMAND, PROVISIONED, Load, find_problems, with_settings
from stream_app.costs.prices import SHIPPED, Price, Prices, load
from stream_app.errors import ConfigError
from stream_app.settings import Settings

PRICES = load()
QUIET = Load(1_000.0, 1_024.0, failed=0.0, alerts=0.0, headroom=0.0, retention_hours=24)

loads = st.builds(
    Load,
    records_per_s=st.floats(0.1, 200_000),
    size=st.floats(50, 200_000),
    retention_hours=st.integers(24, 8_760),
    failed=st.floats(0, 1),
    alerts=st.floats(0, 0.01),
    segment_seconds=st.integers(1, 3_600),
    segment_records=st.integers(1_000, 200_000),
    checkpoint_seconds=st.integers(1, 3_600),
    metrics_level=st.sampled_from(("NONE", "SUMMARY", "DETAILED")),
    latest=st.booleans(),
    through_bus=st.booleans(),
)
modes = st.sampled_from(MODES)


def lines(wanted: Load, mode: str) -> dict[tuple[str, str], float]:
    return {(line.service, line.what): line.dollars for line in bill(wanted, PRICES, mode)}


def by_service(wanted: Load, mode: str) -> dict[str, float]:
    sums: dict[str, float] = defaultdict(float)
    for line in bill(wanted, PRICES, mode):
        sums[line.service] += line.dollars
    return sums


def test_a_provisioned_shard_by_hand() -> None:
    found = lines(QUIET, PROVISIONED)
    # One shard of 730 hours at $0.015; 1,000/s × 2,628,000 s = 2,628 million units of 25 KB at $0.014.
    assert found["Kinesis", "shards"] == pytest.approx(10.95)
    assert found["Kinesis", "payload units"] == pytest.approx(36.792)
    assert found["Kinesis", "retention to 7 days"] == 0


def test_an_on_demand_stream_by_hand() -> None:
    found = lines(replace(QUIET, size=361.0, retention_hours=168), ON_DEMAND)
    # 361 bytes count as 1 KB: 2,628 million KB are 2,506.256 GB; 144 of 730 hours of it are stored beyond a day.
    assert found["Kinesis", "stream"] == pytest.approx(29.2)
    assert found["Kinesis", "written"] == pytest.approx(200.5005, rel=1e-5)
    assert found["Kinesis", "read"] == pytest.approx(100.2502, rel=1e-5)
    assert found["Kinesis", "retention to 7 days"] == pytest.approx(49.4385, rel=1e-4)


def test_ingestion_by_hand() -> None:
    found = lines(replace(QUIET, archive_days=0), PROVISIONED)
    # 2,628 million events at $1; SQS sends them singly and receives and deletes them in tens; the pipe at $0.40.
    assert found["EventBridge", "device events"] == pytest.approx(2_628.0)
    assert found["SQS", "device queue"] == pytest.approx(2_628.0 * 1.2 * 0.40)
    assert found["EventBridge Pipes", "requests"] == pytest.approx(1_051.2)


def test_events_are_billed_in_units_of_64_kilobytes() -> None:
    one, two = (lines(replace(QUIET, size=size), PROVISIONED) for size in (65_536.0, 65_537.0))
    assert two["EventBridge", "device events"] == pytest.approx(2 * one["EventBridge", "device events"])


def test_segments_are_closed_by_time_and_by_record_count() -> None:
    slow = replace(QUIET, records_per_s=100.0, shards=1)
    # A segment per minute is 43,800 per month; $0.005 per thousand PUTs.
    assert lines(slow, PROVISIONED)["S3", "segments: Parquet"] == pytest.approx(0.219)
    # At 1,000 records per second, 50,000 records take 50 s, less than the minute.
    full = replace(QUIET, shards=1)
    assert lines(full, PROVISIONED)["S3", "segments: Parquet"] == pytest.approx(SECONDS / 50 / 1_000 * 0.005)


def test_a_lease_is_renewed_three_times_per_failover_time() -> None:
    found = lines(replace(QUIET, shards=10), PROVISIONED)
    # 10 leases, 0.3 renewals per second each: 7.884 million writes at $0.625.
    assert found["DynamoDB (KCL)", "lease renewals"] == pytest.approx(4.9275)


def test_two_tasks_by_hand() -> None:
    found = by_service(QUIET, PROVISIONED)
    assert found["Fargate"] == pytest.approx(2 * HOURS * (0.04048 + 2 * 0.004445))


def test_shards_by_records_and_by_bytes() -> None:
    assert Load(4_000.0, 100.0, headroom=0.0).shards_of(PROVISIONED) == 4
    assert Load(10.0, 1_048_576.0, headroom=0.0).shards_of(PROVISIONED) == 10
    assert Load(1.0, 100.0).shards_of(ON_DEMAND) == 4


@given(loads, modes, st.floats(1.0, 10.0))
def test_more_records_never_cost_less(some: Load, mode: str, factor: float) -> None:
    more = replace(some, records_per_s=some.records_per_s * factor)
    assert total(bill(more, PRICES, mode)) >= total(bill(some, PRICES, mode)) * (1 - 1e-12)


@given(loads, modes)
def test_costs_per_record_are_linear(some: Load, mode: str) -> None:
    twice = lines(replace(some, records_per_s=2 * some.records_per_s), mode)
    for name, dollars in lines(some, mode).items():
        if name[0] in ("EventBridge", "SQS", "EventBridge Pipes", "Lambda") or name[1] in ("written", "read"):
            assert twice[name] == pytest.approx(2 * dollars)


@given(loads, modes)
def test_costs_are_linear_in_the_prices(some: Load, mode: str) -> None:
    dear = {name: Price(3 * p.dollars, p.per, p.unit, p.source) for name, p in PRICES.by_name.items()}
    tripled = total(bill(some, Prices(PRICES.date, PRICES.region, dear), mode))
    assert tripled == pytest.approx(3 * total(bill(some, PRICES, mode)))


@given(loads)
def test_only_stream_and_per_shard_costs_depend_on_the_mode(some: Load) -> None:
    on_demand, provisioned = (by_service(replace(some, shards=1_000_000), mode) for mode in MODES)
    assert {s for s in on_demand if on_demand[s] != pytest.approx(provisioned[s])} <= {"Kinesis"}


@given(loads)
def test_longer_segments_never_cost_more(some: Load) -> None:
    longer = replace(some, segment_seconds=2 * some.segment_seconds)
    for mode in MODES:
        assert total(bill(longer, PRICES, mode)) <= total(bill(some, PRICES, mode)) * (1 + 1e-12)


@given(loads)
def test_changes_are_differences_of_estimates(some: Load) -> None:
    for change in changes(some, PRICES):
        if change.setting == "metricsLevel":
            other = replace(some, metrics_level=change.other)
            expected = total(bill(other, PRICES, ON_DEMAND)) - total(bill(some, PRICES, ON_DEMAND))
            assert change.dollars[ON_DEMAND] == pytest.approx(expected, abs=1e-9)


def test_every_price_is_used_and_has_a_source() -> None:
    some = replace(QUIET, failed=0.1, alerts=0.1, latest=True, retention_hours=500)
    used = {line.price for mode in MODES for line in bill(some, PRICES, mode)}
    assert used == set(PRICES.by_name)
    assert all(price.source and price.unit for price in PRICES.by_name.values())


def test_settings_are_read_from_a_properties_file() -> None:
    pairs = {"applicationName": "a", "streamName": "s", "app.segment_seconds": "300", "metricsLevel": "none"}
    found = with_settings(QUIET, Settings.load({}, pairs), {**pairs, "failoverTimeMillis": "30000"})
    assert (found.segment_seconds, found.metrics_level, found.failover_ms) == (300, "NONE", 30_000)
    with pytest.raises(ConfigError, match="failoverTimeMillis"):
        with_settings(QUIET, Settings.load({}, pairs), {**pairs, "failoverTimeMillis": "soon"})


def test_all_problems_of_an_invalid_load_are_reported() -> None:
    wrong = find_problems(replace(QUIET, size=0.0, retention_hours=1, shards=1, records_per_s=5_000.0))
    assert len(wrong) == 3
    assert all(problem.hint for problem in wrong)


def test_custom_prices_override_defaults_and_invalid_ones_are_rejected(tmp_path: Path) -> None:
    table = json.loads(SHIPPED.read_text())
    path = tmp_path / "prices.json"
    entry = {**table["regions"]["us-east-1"]["s3.put"], "dollars": 7.0}
    path.write_text(json.dumps({"date": "today", "regions": {"us-east-1": {"s3.put": entry}}}))
    assert load(path)["s3.put"].dollars == 7.0
    path.write_text(json.dumps({"date": "today", "regions": {"eu-west-1": {"s3.put": entry}}}))
    with pytest.raises(ConfigError, match="no price"):
        load(path, "eu-west-1")
    with pytest.raises(ConfigError, match="no region"):
        load(path)
    path.write_text("{")
    with pytest.raises(ConfigError, match="cannot read price table"):
        load(path)


def test_the_command() -> None:
    run = CliRunner().invoke(app, ["cost", "--records-per-s", "1000", "--bytes", "361", "--json"])
    told = json.loads(run.stdout)
    assert run.exit_code == 0
    assert told["total"][ON_DEMAND] == pytest.approx(
        sum(line["dollars"] for line in told["lines"][ON_DEMAND])
    )
    assert told["changes"]
    shown = CliRunner().invoke(app, ["cost", "--records-per-s", "1000", "--bytes", "361"])
    assert "on-demand" in shown.stdout
    assert "Kinesis" in shown.stdout
    assert "Not verified" not in shown.stdout


def test_an_unverified_price_is_reported(tmp_path: Path) -> None:
    entry = {**json.loads(SHIPPED.read_text())["regions"]["us-east-1"]["s3.put"], "verified": False}
    path = tmp_path / "prices.json"
    path.write_text(json.dumps({"date": "today", "regions": {"us-east-1": {"s3.put": entry}}}))
    how = ["cost", "--records-per-s", "1000", "--bytes", "361", "--prices", str(path)]
    assert "Not verified: s3.put" in CliRunner().invoke(app, how).stdout


def test_invalid_input_is_reported_with_a_hint() -> None:
    run = CliRunner().invoke(app, ["cost", "--records-per-s", "-1", "--bytes", "361"])
    assert isinstance(run.exception, ConfigError)  # main() turns it into exit code 2
    assert "give" in run.exception.problems[0].hint
