"""Only the rows on which a user's function raises fail; the other rows are processed."""

from __future__ import annotations

import asyncio
import gc
import signal
import warnings
import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from stream_app.model.record import Batch, Code, Outcome
from stream_app.pipeline.calculate import calculate
from stream_app.pipeline.registry import Codec
from stream_app.pipeline.user_code.error_isolation import call_isolated
from stream_app.pipeline.user_code.user_calls import truncated
from stream_app.pipeline.verify import verify
from stream_app.source_lines import defined_at, line_in, without_line
from tests.samples import READING, registry

CODEC = registry().codecs["reading"]
Function = Callable[[Batch], Any]


def codec(**declared: Any) -> Codec:
    return replace(CODEC, event=replace(READING, **declared))


def batch(values: list[int], first_row: int = 0) -> Batch:
    rows = np.arange(len(values), dtype=np.int64) + first_row
    return Batch(
        "reading", {"value": np.array(values, dtype=np.int64), "w": np.zeros((len(values), 2))}, rows
    )


def calculated(function: Function, values: list[int]) -> Outcome:
    return calculate(batch(values), codec(calculate=function))


def verified(function: Function, values: list[int]) -> Outcome:
    return verify(batch(values), codec(verify=function))


def raises_on(failing: set[int]) -> Function:
    def function(part: Batch) -> Mapping[str, NDArray[Any]]:
        found = sorted(failing.intersection(part["value"].tolist()))
        if found:
            raise ValueError(f"cannot bear {found[0]}")
        return {"square": part["value"] ** 2}

    return function


def alone(function: Function) -> Function:
    """Wrap a function so that it raises for more than one row."""

    def picky(part: Batch) -> Any:
        if len(part) > 1:
            raise RuntimeError("one at a time")
        return function(part)

    return picky


@given(st.lists(st.integers(0, 9), max_size=40), st.sets(st.integers(0, 9)), st.booleans())
def test_only_the_failing_rows_fail(values: list[int], failing: set[int], picky: bool) -> None:
    function = alone(raises_on(failing)) if picky else raises_on(failing)
    columns, kept, failed = call_isolated(function, batch(values, 5), "stage", "mark")
    good = [value for value in values if value not in failing]
    assert kept["value"].tolist() == good
    assert columns.get("square", np.zeros(0)).tolist() == [value**2 for value in good]
    line = f"unit/test_error_isolation.py:{raises_on.__code__.co_firstlineno + 4}"
    assert [(f.row, f.reason) for f in failed] == [
        (at + 5, f"ValueError: cannot bear {value} ({line})")
        for at, value in enumerate(values)
        if value in failing
    ]
    assert {line_in(f.reason) for f in failed} <= {line}
    assert {(f.stage, f.code, f.event, f.schema) for f in failed} <= {
        ("stage", Code.CALCULATION_FAILED, "reading", "mark")
    }
    assert sorted([*kept.rows.tolist(), *(f.row for f in failed)]) == [at + 5 for at in range(len(values))]


def test_few_failing_rows_need_few_calls() -> None:
    calls: list[int] = []

    def counting(part: Batch) -> Mapping[str, NDArray[Any]]:
        calls.append(len(part))
        return raises_on({777})(part)  # type: ignore[no-any-return]

    _, kept, failed = call_isolated(counting, batch(list(range(1_024))), "stage", "mark")
    assert (len(kept), len(failed)) == (1_023, 1)
    # One call for all rows, one or two for each of ten bisection steps, and one for all passing rows.
    assert len(calls) <= 1 + 2 * 10 + 1
    assert sum(calls) <= 4 * 1_024


@pytest.mark.parametrize(
    "wrong",
    [
        lambda part: {"x": np.zeros(len(part) + 1)},
        lambda part: {"x": np.zeros((len(part), 1))},
        lambda _part: {"x": 5.0},
        lambda _part: {"x": []},
        lambda _part: None,
        lambda part: [part["value"]],
        lambda part: part["nothing"],
        lambda part: part["value"].__setitem__(0, 5),
        lambda part: part.columns.__setitem__("value", part["w"]),
        lambda part: {"score": part["value"]},
        lambda part: {"arrived": part["value"]},
    ],
)
def test_a_malformed_result_fails_its_rows(wrong: Function) -> None:
    outcome = calculated(wrong, [1, 2, 3])
    assert len(outcome.passed) == 0
    assert [(f.row, f.stage, f.code) for f in outcome.failed] == [
        (row, "calculate", Code.CALCULATION_FAILED) for row in range(3)
    ]
    assert all(f.reason for f in outcome.failed)


def test_a_reason_is_truncated_to_the_limit_of_a_dead_letter() -> None:
    def wordy(_part: Batch) -> Mapping[str, NDArray[Any]]:
        raise ValueError("x" * 10**6)

    (failure,) = calculated(wordy, [1]).failed
    assert failure.reason.startswith("ValueError: xxx")
    assert len(failure.reason) == 200
    assert truncated("brief") == "brief"


def test_an_exception_whose_str_raises_is_named_by_its_class() -> None:
    class MuteError(Exception):
        def __str__(self) -> str:
            raise ValueError("no words")

    def mute(_part: Batch) -> Mapping[str, NDArray[Any]]:
        raise MuteError

    assert [without_line(f.reason) for f in calculated(mute, [1, 2]).failed] == ["MuteError"] * 2


def test_exceptions_do_not_keep_a_batch_alive() -> None:
    whole = batch([1, 2, 3, 4])
    mine = weakref.ref(whole["w"].base)
    gc.disable()
    try:
        call_isolated(raises_on({2, 3}), whole, "stage", "mark")
        del whole
        assert mine() is None
    finally:
        gc.enable()


def test_a_column_that_is_returned_for_some_rows_is_none_in_the_others() -> None:
    def moody(part: Batch) -> Mapping[str, NDArray[Any]]:
        made = dict(alone(raises_on({5}))(part))
        return {**made, "extra": part["value"]} if part["value"][0] > 5 else made

    outcome = calculated(moody, [1, 2, 5, 7])
    assert outcome.passed["extra"].tolist() == [None, None, 7]
    assert outcome.passed["square"].tolist() == [1, 4, 49]


def test_columns_of_incompatible_types_become_objects() -> None:
    def moody(part: Batch) -> Mapping[str, NDArray[Any]]:
        alone(raises_on({5}))(part)
        odd = part["value"] if part["value"][0] > 5 else np.zeros(len(part), dtype="datetime64[ms]")
        return {"x": odd}

    assert calculated(moody, [1, 5, 7]).passed["x"].dtype == object


def test_calculate_must_not_return_a_field_of_the_schema() -> None:
    outcome = calculated(lambda part: {"value": part["value"] + 0.5}, [1, 2])
    assert len(outcome.passed) == 0
    assert all(f.reason.startswith("returned column 'value', which is a field") for f in outcome.failed)


@pytest.mark.parametrize("length", [1, 2, 3, 4, 6])
@pytest.mark.parametrize("rows", [2, 3, 5, 9])
def test_a_constant_length_fails_all_of_several_rows(length: int, rows: int) -> None:
    """Bisection must not accept the result for a part that happens to have this length."""
    if length in (1, rows):  # correct for a single row and for the whole batch
        return
    outcome = calculated(lambda _part: {"x": np.arange(length)}, list(range(rows)))
    assert len(outcome.passed) == 0
    assert len(outcome.failed) == rows
    assert {f.reason.partition(" (unit")[0] for f in outcome.failed} == {
        f"returned column 'x' of shape ({length},), expected (1,)"
    }


def test_a_malformed_result_during_bisection_stops_the_bisection() -> None:
    def moody(part: Batch) -> Mapping[str, NDArray[Any]]:
        raises_on({0})(part)
        return {"x": np.arange(3)}

    outcome = calculated(moody, [0, 1, 2, 3, 4, 5])
    assert len(outcome.passed) == 0
    assert [f.row for f in outcome.failed] == list(range(6))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=20), st.data())
def test_the_outcome_of_a_row_is_that_of_the_row_alone(values: list[int], data: st.DataObject) -> None:
    def filters(part: Batch) -> Mapping[str, NDArray[Any]]:
        return {"x": part["value"][part["value"] % 3 > 0] * 2}

    cut = data.draw(st.integers(0, len(values)))
    parts = [calculated(filters, values[:cut]), calculated(filters, values[cut:])]
    found = [x for part in parts if "x" in part.passed for x in part.passed["x"].tolist()]
    assert found == [2 * value for value in values if value % 3]
    assert [f.reason for part in parts for f in part.failed] == [
        f"returned column 'x' of shape (0,), expected (1,) ({defined_at(filters)})"
    ] * sum(value % 3 == 0 for value in values)


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), MemoryError(), RecursionError("deep"), asyncio.CancelledError()]
)
def test_every_exception_fails_the_rows(error: BaseException) -> None:
    def leaves(part: Batch) -> Mapping[str, NDArray[Any]]:
        if 2 in part["value"]:
            raise error
        return {"x": part["value"]}

    outcome = calculated(leaves, [1, 2, 3])
    assert outcome.passed["x"].tolist() == [1, 3]
    assert [f.reason.startswith(type(error).__name__) for f in outcome.failed] == [True]


def test_a_keyboard_interrupt_propagates_unless_sigint_is_ignored() -> None:
    def interrupted(_part: Batch) -> Mapping[str, NDArray[Any]]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        calculated(interrupted, [1, 2])
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert len(calculated(interrupted, [1, 2]).failed) == 2
    finally:
        signal.signal(signal.SIGINT, before)


def test_process_wide_settings_are_restored() -> None:
    def rude(part: Batch) -> Mapping[str, NDArray[Any]]:
        np.seterr(all="raise")
        warnings.simplefilter("error")
        return {"x": part["value"]}

    errors, filters = np.geterr(), list(warnings.filters)
    assert len(calculated(rude, [1, 2]).passed) == 2
    assert np.geterr() == errors
    assert list(warnings.filters) == filters


def test_a_reason_is_valid_unicode_without_object_addresses() -> None:
    class Thing:
        pass

    def odd(_part: Batch) -> Mapping[str, NDArray[Any]]:
        raise ValueError(f"\udc80 {Thing()}")

    (failure,) = calculated(odd, [1]).failed
    assert failure.reason.encode()
    assert "Thing object>" in failure.reason


def test_masked_values_become_missing() -> None:
    outcome = calculated(
        lambda part: {
            "float": np.ma.masked_equal(part["value"] * 1.0, 2.0),
            "whole": np.ma.masked_equal(part["value"], 2),
            "at": np.ma.masked_equal(part["value"].astype("datetime64[ms]"), np.datetime64(2, "ms")),
        },
        [1, 2],
    )
    assert np.isnan(outcome.passed["float"]).tolist() == [False, True]
    assert outcome.passed["whole"].tolist() == [1, None]
    assert np.isnat(outcome.passed["at"]).tolist() == [False, True]


# ---- Rules


@given(st.lists(st.integers(0, 9), min_size=1, max_size=30), st.integers(0, 9), st.integers(0, 9))
def test_a_row_passes_every_rule_or_names_the_broken_ones(values: list[int], low: int, high: int) -> None:
    rules: dict[str, Callable[[Any], Any]] = {"low": lambda v: v >= low, "high": lambda v: v <= high}
    outcome = verified(lambda part: {name: rule(part["value"]) for name, rule in rules.items()}, values)
    broken = {
        at: [name for name, rule in rules.items() if not rule(value)] for at, value in enumerate(values)
    }
    assert outcome.passed.rows.tolist() == [at for at, names in broken.items() if not names]
    assert [(f.row, f.reason) for f in outcome.failed] == [
        (at, "; ".join(names)) for at, names in broken.items() if names
    ]
    assert {(f.stage, f.code) for f in outcome.failed} <= {("verify", Code.RULE_BROKEN)}


def test_a_rule_that_raises_fails_only_the_failing_rows() -> None:
    def rules(part: Batch) -> Mapping[str, NDArray[Any]]:
        raises_on({2})(part)
        return {"odd": part["value"] % 2 == 1}

    outcome = verified(rules, [1, 2, 3, 4])
    assert outcome.passed["value"].tolist() == [1, 3]
    assert [(f.row, f.stage, f.code) for f in outcome.failed] == [
        (1, "verify", Code.CALCULATION_FAILED),
        (3, "verify", Code.RULE_BROKEN),
    ]


def test_a_rule_that_is_returned_for_some_rows_passes_the_others() -> None:
    def rules(part: Batch) -> Mapping[str, NDArray[Any]]:
        alone(raises_on({2}))(part)
        return {"small": part["value"] < 5} if (part["value"] > 2).any() else {"any": part["value"] > 0}

    outcome = verified(rules, [1, 2, 3, 9])
    assert outcome.passed["value"].tolist() == [1, 3]
    assert [(f.row, f.reason) for f in outcome.failed][1] == (3, "small")


@pytest.mark.parametrize("wrong", [lambda _part: {"rule": True}, lambda part: {"rule": part["w"] > 0}])
def test_a_mask_of_another_shape_fails_its_rows(wrong: Function) -> None:
    assert len(verified(wrong, [1, 2]).failed) == 2


@pytest.mark.parametrize("stage", [verify, calculate])
def test_without_a_function_or_without_rows_everything_passes(
    stage: Callable[[Batch, Codec], Outcome],
) -> None:
    def never(_part: Batch) -> Any:
        raise AssertionError("called for nothing")

    assert len(stage(batch([1, 2]), codec(verify=None, calculate=None)).passed) == 2
    assert stage(batch([]), codec(verify=never, calculate=never)).failed == ()
    assert len(stage(batch([1, 2]), codec(verify=lambda _part: {}, calculate=lambda _part: {})).passed) == 2


@pytest.mark.parametrize(
    ("mask", "kind"),
    [
        (lambda part: part["value"] * 1.0, "float"),
        (lambda part: part["value"], "int"),
        (lambda part: np.array([None] * len(part), dtype=object), "None"),
        (lambda part: np.array(["yes"] * len(part)), "str"),
    ],
)
def test_a_mask_that_is_not_boolean_fails_its_rows(mask: Function, kind: str) -> None:
    outcome = verified(lambda part: {"rule": mask(part)}, [0, 1])
    assert [(f.row, f.code) for f in outcome.failed] == [(row, Code.CALCULATION_FAILED) for row in range(2)]
    assert all(f"'rule' that holds {kind}, expected booleans" in f.reason for f in outcome.failed)


def test_only_the_rows_whose_entry_is_none_fail() -> None:
    def rules(part: Batch) -> Mapping[str, Any]:
        return {"rule": [None if value == 2 else value < 4 for value in part["value"].tolist()]}

    outcome = verified(rules, [1, 2, 3, 4])
    assert outcome.passed["value"].tolist() == [1, 3]
    assert [(f.row, f.code) for f in outcome.failed] == [(1, Code.CALCULATION_FAILED), (3, Code.RULE_BROKEN)]
