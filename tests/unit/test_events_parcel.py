"""The parcel event: the order of its states, and the durations it calculates."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream_app.events.parcel import EVENT, calculate, verify
from stream_app.model.record import Batch

NOW = np.datetime64("2024-06-01T12:00:00.000", "ms")
NEVER = np.datetime64("NaT", "ms")
MILLISECOND = np.timedelta64(1, "ms")
# A regular expression of all valid status sequences, by initials, including all prefixes.
LIFE = re.compile("(p(t+(ds?)?)?)?")
INITIALS = {"picked_up": "p", "in_transit": "t", "delivered": "d", "signed": "s"}
statuses = st.sampled_from([*INITIALS, "lost"])
lives = st.from_regex(LIFE, fullmatch=True).map(
    lambda initials: [{i: s for s, i in INITIALS.items()}[initial] for initial in initials]
)
gaps = st.integers(0, 10**9)
lenient = settings(deadline=None)


def batch(rows: int = 1, **columns: Any) -> Batch:
    """Return first pick-ups of new parcels at the time of arrival, except for the given columns."""
    values: dict[str, Any] = {
        "status": texts(*["picked_up"] * rows),
        "previous.status": texts(*[None] * rows),
    }
    values |= {"time": np.full(rows, NOW), "arrived": np.full(rows, NOW)}
    values |= {"promised": np.full(rows, NEVER), "previous.time": np.full(rows, NEVER)}
    return Batch("parcel", values | columns, np.arange(rows))


def texts(*values: str | None) -> np.ndarray:
    return np.fromiter(values, dtype=object, count=len(values))


def broken(rows: Batch) -> list[set[str]]:
    masks = verify(rows)
    assert all(mask.dtype == np.bool_ and mask.shape == (len(rows),) for mask in masks.values())
    return [{rule for rule, mask in masks.items() if not mask[row]} for row in range(len(rows))]


def step(status: str, time: np.datetime64, before: tuple[str, np.datetime64] | None, **more: Any) -> Batch:
    last_status, last_time = before or (None, NEVER)
    past: dict[str, Any] = {"previous.status": texts(last_status), "previous.time": np.array([last_time])}
    return batch(status=texts(status), time=np.array([time]), arrived=np.array([time]), **past, **more)


@given(st.lists(st.tuples(statuses, gaps), max_size=12))
@lenient
def test_a_status_is_accepted_only_if_it_may_follow_the_previous_ones(
    steps: list[tuple[str, int]],
) -> None:
    accepted, before, time = "", None, NOW
    for status, gap in steps:
        time = time + gap * MILLISECOND
        longer = accepted + INITIALS.get(status, "?")
        legal = not broken(step(status, time, before))[0]
        assert legal == bool(LIFE.fullmatch(longer))
        if legal:
            accepted, before = longer, (status, time)


@given(lives, st.lists(gaps, min_size=50, max_size=50))
@lenient
def test_valid_status_sequences_are_accepted(life: list[str], waits: list[int]) -> None:
    time, before = NOW, None
    for status, wait in zip(life, waits, strict=False):
        time = time + wait * MILLISECOND
        assert broken(step(status, time, before)) == [set()]
        before = (status, time)


@pytest.mark.parametrize("status", [*INITIALS, "lost"])
@pytest.mark.parametrize("life", ["", "p", "pt", "ptd", "ptds"])
def test_every_status_transition(life: str, status: str) -> None:
    last = next((s for s, initial in INITIALS.items() if initial == life[-1:]), None)
    past: dict[str, Any] = {
        "previous.status": texts(last),
        "previous.time": np.array([NOW if last else NEVER]),
    }
    (rules,) = broken(batch(status=texts(status), **past))
    assert ("status may follow the parcel's last one" not in rules) == bool(
        LIFE.fullmatch(life + INITIALS.get(status, "?"))
    )


@pytest.mark.parametrize("status", ["lost", "", "Picked_up"])
def test_an_unknown_status_breaks_the_rule_that_names_the_known_ones(status: str) -> None:
    (rules,) = broken(batch(status=texts(status)))
    assert "status is picked_up, in_transit, delivered or signed" in rules


@given(st.integers(-(10**9), 10**9))
@lenient
def test_time_must_not_go_backwards(gap: int) -> None:
    later = NOW + gap * MILLISECOND
    (rules,) = broken(step("in_transit", later, ("picked_up", NOW)))
    assert rules == ({"time is not before the parcel's last one"} if gap < 0 else set())


def test_time_may_follow_arrival_by_the_clock_skew_at_most() -> None:
    edge = NOW + np.timedelta64(5 * 60, "s")
    times = np.array([edge, edge + MILLISECOND, NOW - np.timedelta64(9999, "D")])
    assert broken(batch(3, time=times)) == [set(), {"time is at most 5 minutes after arrival"}, set()]


@given(lives, st.lists(gaps, min_size=50, max_size=50))
@lenient
def test_the_seconds_in_each_state_add_up_to_the_total(life: list[str], waits: list[int]) -> None:
    time, before, spent = NOW, None, []
    for status, wait in zip(life, waits, strict=False):
        time = time + wait * MILLISECOND
        spent.append(calculate(step(status, time, before))["seconds_in_state"][0])
        before = (status, time)
    assert np.isnan(spent[:1]).all()
    assert sum(spent[1:]) == pytest.approx(sum(waits[1 : len(life)]) / 1000)


@given(st.sampled_from(sorted(INITIALS)), st.none() | st.integers(-(10**10), 10**10))
@lenient
def test_lateness_is_the_time_after_the_promised_delivery(status: str, ahead: int | None) -> None:
    promise = NEVER if ahead is None else NOW - ahead * MILLISECOND
    found = calculate(batch(status=texts(status), promised=np.array([promise])))
    if status == "delivered" and ahead is not None:
        assert found["lateness"][0] == ahead / 1000
        assert found["late"][0] == int(ahead > 0)
    else:
        assert np.isnan(found["lateness"][0])
        assert found["late"][0] == 0


def test_a_delivery_at_the_promised_time_is_not_late() -> None:
    found = calculate(batch(status=texts("delivered"), promised=np.array([NOW])))
    assert (found["lateness"][0], found["late"][0]) == (0.0, 0)


def random_batch(seed: int, rows: int) -> Batch:
    rng = np.random.default_rng(seed)
    known = np.array([*INITIALS, "lost"], dtype=object)

    def times() -> np.ndarray:
        offsets = rng.integers(-(10**9), 10**9, rows) * MILLISECOND
        return np.where(rng.random(rows) < 0.2, NEVER, NOW + offsets)

    before = np.array([*known, None], dtype=object)[rng.integers(0, 6, rows)]
    times_given: dict[str, Any] = {"promised": times(), "previous.time": times()}
    return batch(rows, status=known[rng.integers(0, 5, rows)], **{"previous.status": before}, **times_given)


@given(seed=st.integers(0, 2**32 - 1), rows=st.integers(0, 40), data=st.data())
@lenient
def test_rules_and_results_do_not_depend_on_other_rows(seed: int, rows: int, data: st.DataObject) -> None:
    whole = random_batch(seed, rows)
    mask = np.array(data.draw(st.lists(st.booleans(), min_size=rows, max_size=rows)), dtype=np.bool_)
    for function in (verify, calculate):
        parts = function(whole.take(mask))
        for name, column in function(whole).items():
            assert column.dtype == parts[name].dtype
            assert column[mask].tobytes() == parts[name].tobytes()


def test_the_event_declares_the_previous_values_that_it_reads() -> None:
    assert set(EVENT.previous) == {"status", "time"}
