"""Programming errors of users are found when the event type is loaded, with file and line."""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.nearest import NearestValue
from stream_app.errors import ConfigError
from stream_app.event_loading import load_registry
from stream_app.model.event import Event, Range, Rate, Stuck, Window
from stream_app.pipeline.registry import Registry
from stream_app.pipeline.user_code.generated_rows import EXTREME, ORDINARY, WITHOUT_OPTIONAL, generate_rows
from tests import avro, samples

TIME = {"type": "long", "logicalType": "timestamp-millis"}
SCHEMA: dict[str, Any] = {
    "type": "record",
    "name": "tank",
    "fields": [
        {"name": "id", "type": "string"},
        {"name": "tank", "type": "string"},
        {"name": "time", "type": TIME},
        {"name": "litres", "type": ["null", "double"], "default": None},
        {"name": "pumps", "type": "long"},
        {"name": "kind", "type": ["null", "string"], "default": None},
        {"name": "open", "type": "boolean"},
        {"name": "tags", "type": {"type": "array", "items": "string"}},
    ],
}
USUAL: dict[str, Any] = {"name": "tank", "key": "tank", "required": ("id", "tank", "time")}
WINDOW = Window(("litres",), size=3)
CALLS = itertools.count()
SHARED = np.zeros(1)


def load(**declared: Any) -> Registry:
    return Registry.of([Event(**{**USUAL, **declared})], {"tank": [SCHEMA]})


def problems(**declared: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(**declared)
    assert all(problem.hint for problem in caught.value.problems)
    return [problem.what for problem in caught.value.problems]


def as_array(b: Any) -> Any:
    return b["litres"] > 1


def returns_none(_b: Any) -> Any:
    return None


def raises_name_error(b: Any) -> Any:
    return {"x": litres * 2}  # type: ignore[name-defined]  # noqa: F821


def raises_import_error(b: Any) -> Any:
    import no_such_module_anywhere  # type: ignore[import-not-found]  # noqa: F401

    return {"x": b["litres"]}


def leaves(_b: Any) -> Any:
    sys.exit(3)


def recurses(b: Any) -> Any:
    return recurses(b)


def changes(b: Any) -> Any:
    column = b["litres"]
    column.flags.writeable = True
    column[:] = 0
    return {"x": column}


def changes_in_place(b: Any) -> Any:
    for tags in b["tags"]:
        tags.append("new")
    return {"x": b["litres"]}


def branches(b: Any) -> Any:
    if b["pumps"] > 2:
        return {"x": b["litres"]}
    return {"x": b["litres"] * 2}


def accumulates(b: Any) -> Any:
    SHARED[0] += 1
    return {"x": b["litres"] + SHARED[0]}


# `calculate` functions with programming errors, and the expected message.
WRONG: dict[str, tuple[Callable[[Any], Any], str]] = {
    "array": (as_array, "returned ndarray, expected a mapping"),
    "list": (lambda b: [b["litres"]], "returned list,"),
    "nothing": (returns_none, "returned None,"),
    "tuple": (lambda b: ("x", b["litres"]), "returned tuple,"),
    "generator": (lambda b: (x for x in b["litres"]), "returned generator,"),
    "short": (lambda b: {"x": b["litres"][:-1]}, r"column 'x' of shape \(0,\), expected \(1,\)"),
    "long": (lambda b: {"x": np.zeros(len(b) + 1)}, r"column 'x' of shape \(2,\), expected \(1,\)"),
    "three": (lambda b: {"x": np.zeros(3)}, r"column 'x' of shape \(3,\), expected \(1,\)"),
    "one": (lambda b: {"x": [b["litres"].sum()]}, r"fails on \d rows together.*shape \(1,\)"),
    "at most two": (lambda b: {"x": b["litres"][:2]}, r"fails on 3 rows together.*shape \(2,\), expected \(3,\)"),
    "distinct": (lambda b: {"x": np.unique(b["litres"])}, r"fails on .* rows together.*shape"),
    "filtered": (lambda b: {"x": b["litres"][~np.isnan(b["litres"])]}, r"shape \(0,\), expected \(1,\)"),
    "dropna": (lambda b: b.to_pandas()[["litres"]].rename(columns={"litres": "x"}).dropna(), "shape"),
    "scalar": (lambda b: {"x": 5.0}, r"shape \(\)"),
    "two dimensions": (lambda b: {"x": b["window.litres"]}, r"shape \(1, 3\)"),
    "column vector": (lambda b: {"x": b["litres"].reshape(-1, 1)}, r"shape \(1, 1\)"),
    "field": (lambda b: {"litres": b["litres"] * 2}, "column 'litres', which is a field of the schema"),
    "id": (lambda b: {"id": b["id"]}, "column 'id', which is a field of the schema"),
    "score": (lambda b: {"score": b["litres"]}, "column 'score', which the pipeline adds"),
    "arrived": (lambda b: {"arrived": b["arrived"]}, "column 'arrived', which the pipeline adds"),
    "window": (lambda b: {"window.x": b["litres"]}, r"column 'window\.x', which the pipeline adds"),
    "name": (lambda b: {5: b["litres"]}, "a column whose name is 5"),
    "no name": (lambda b: {"": b["litres"]}, "a column whose name is ''"),
    "unknown column": (lambda b: {"x": b["liters"]}, "KeyError: 'liters'"),
    "unknown attribute": (lambda b: {"x": b.litres}, "AttributeError: 'Batch' object has no attribute 'litres'"),
    "unknown method": (lambda b: {"x": b["litres"].rolling(3)}, "AttributeError"),
    "unknown name": (raises_name_error, "NameError: name 'litres' is not defined"),
    "no module": (raises_import_error, "ModuleNotFoundError"),
    "wrong types": (lambda b: {"x": b["time"] + 1.5}, "TypeError"),
    "text and number": (lambda b: {"x": b["tank"] + 1}, "TypeError"),
    "unfinished": (lambda b: (_ for _ in ()).throw(NotImplementedError("later")), "NotImplementedError: later"),
    "exit": (leaves, "SystemExit: 3"),
    "recursion": (recurses, "RecursionError"),
    "assignment": (lambda b: b["litres"].__setitem__(0, 1.0), "read-only"),
    "changes": (changes, "changes column litres of its batch"),
    "changes in place": (changes_in_place, "changes column tags of its batch"),
    "neighbours": (lambda b: {"x": b["litres"] - b["pumps"].mean()}, "column x of 2 rows differs"),
    "running sum": (lambda b: {"y": b["pumps"], "x": np.cumsum(b["pumps"])}, "column x of 2 rows differs"),
    "length": (lambda b: {"x": np.full(len(b), len(b))}, "column x of 2 rows differs"),
    "sorted": (lambda b: {"x": np.sort(-b["pumps"])}, "column x of 2 rows differs"),
    "first row": (lambda b: {"x": np.full(len(b), b["pumps"][0])}, "column x of 2 rows differs"),
    "branch": (branches, "fails on 2 rows together, and on none of them alone: ValueError: The truth value"),
    "clock": (lambda b: {"x": np.full(len(b), time.perf_counter_ns())}, "different columns for the same row"),
    "chance": (lambda b: {"x": [random.random() for _ in range(len(b))]}, "different columns for the same row"),
    "counter": (lambda b: {"x": [next(CALLS) for _ in range(len(b))]}, "different columns for the same row"),
    "shared array": (accumulates, "different columns for the same row"),
    "numbers of two types": (
        lambda b: {"x": np.array([1 if pumps > 2 else 0.5 for pumps in b["pumps"]])},
        "column 'x' is a floating-point number or a whole number",
    ),
    "NaN by chance": (
        lambda b: {"x": np.array([np.nan if kind is None else len(kind) for kind in b["kind"]])},
        "column 'x' is a whole number or a floating-point number",
    ),
    "objects": (lambda b: {"x": [object() for _ in b["id"]]}, "column 'x' holds builtins.object, which Parquet"),
    "functions": (lambda b: {"x": np.array([len] * len(b), dtype=object)}, "builtin_function_or_method"),
    "complex numbers": (lambda b: {"x": b["litres"] * 1j}, "complex numbers, which Parquet cannot hold"),
    "keys that are no text": (
        lambda b: {"x": np.array([{(1, 2): 3}] * len(b), dtype=object)}, "column 'x' holds dict"
    ),
    "pandas' missing": (
        lambda b: {"x": np.array([pd.NA] * len(b), dtype=object)}, "NAType, which Parquet cannot hold"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_a_programming_error_in_calculate_is_rejected(kind: str) -> None:
    function, said = WRONG[kind]
    found = problems(calculate=function, window=WINDOW)
    assert len(found) == 1
    assert found[0].startswith("event 'tank': calculate")
    assert re.search(said, found[0])
    assert re.search(r"\(unit/test_dry_run\.py:\d+\)", found[0])


def test_the_reported_line_is_the_one_that_raised() -> None:
    (found,) = problems(calculate=raises_name_error)
    assert f"(unit/test_dry_run.py:{raises_name_error.__code__.co_firstlineno + 1})" in found


MASKS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "array": (as_array, "returned ndarray, expected a mapping"),
    "floats": (lambda b: {"rule": b["litres"]}, "a mask for rule 'rule' that holds float, expected booleans"),
    "zeros and ones": (lambda b: {"rule": (b["pumps"] > 1).astype(int)}, "holds int"),
    "none": (lambda b: {"rule": [None if x != x else x > 1 for x in b["litres"].tolist()]}, "holds None"),
    "text": (lambda b: {"rule": b["tank"]}, "holds str"),
    "one for all": (lambda b: {"rule": True}, r"shape \(\)"),
    "all of them": (lambda b: {"rule": [(b["pumps"] > 1).all()]}, r"shape \(1,\)"),
    "three": (lambda b: {"rule": np.ones(3, dtype=bool)}, r"shape \(3,\)"),
    "two dimensions": (lambda b: {"rule": np.ones((len(b), 2), dtype=bool)}, r"shape \(1, 2\)"),
    "no name": (lambda b: {None: b["open"]}, "whose name is None"),
    "windows are not for rules": (lambda b: {"rule": b["window.litres"][:, 0] > 1}, r"KeyError: 'window\.litres'"),
    "against the mean": (lambda b: {"rule": b["pumps"] >= b["pumps"].mean()}, "column rule of 2 rows differs"),
}  # fmt: skip


@pytest.mark.parametrize("kind", MASKS)
def test_a_programming_error_in_verify_is_rejected(kind: str) -> None:
    function, said = MASKS[kind]
    (found,) = problems(verify=function, window=WINDOW)
    assert found.startswith("event 'tank': verify")
    assert re.search(said, found)


def correct_nothing(b: Any) -> Any:
    return {"litres": np.where(b["flag"] == "x", np.nan, b["litres"])}


RIGHT: dict[str, Callable[[Any], Any]] = {
    "no columns": lambda b: {},
    "list": lambda b: {"x": [1.5] * len(b)},
    "series": lambda b: {"x": pd.Series(b["litres"]) * 2},
    "frame": lambda b: pd.DataFrame({"x": b["litres"], "y": b["pumps"]}),
    "text": lambda b: {"x": np.array([f"{t}!" for t in b["tank"]])},
    "text of objects": lambda b: {"x": np.array([k and k.upper() for k in b["kind"]], dtype=object)},
    "sometimes none": lambda b: {"x": np.array([None if k is None else len(k) for k in b["kind"]])},
    "lists": lambda b: {"x": np.fromiter(([t, 1] for t in b["tank"]), dtype=object, count=len(b))},
    "dicts": lambda b: {"x": np.fromiter(({"a": t} for t in b["tank"]), dtype=object, count=len(b))},
    "decimals": lambda b: {"x": np.array([Decimal(1)] * len(b), dtype=object)},
    "times": lambda b: {"x": b["time"] + np.timedelta64(1, "h")},
    "durations": lambda b: {"x": (b["arrived"] - b["time"]) / np.timedelta64(1, "s")},
    "masked": lambda b: {"x": np.ma.masked_invalid(b["litres"])},
    "windows": lambda b: {"x": np.nanmean(b["window.litres"], axis=1), "y": b["window.litres"].sum(axis=1)},
    "its own input": lambda b: {"x": b["litres"]},
    "raises on all text": lambda b: {"x": [float(t) for t in b["tank"]]},
    "looks up what is not there": lambda b: {"x": [{"known": 1.0}[t] for t in b["tank"]]},
    "matches nothing": lambda b: {"x": [re.match(r"(\d+)", t).group() for t in b["tank"]]},  # type: ignore[union-attr]
    "finds nothing": lambda b: {"x": [{"known": [1]}.get(t)[0] for t in b["tank"]]},  # type: ignore[index]
    "raises on what is missing": lambda b: {"x": [k.upper() for k in b["kind"]]},
    "raises where it is not open": lambda b: {"x": [{True: 1}[bool(o)] for o in b["open"]]},
    "raises on few rows": lambda b: {"x": np.stack([[len(t), 1] for t in b["tank"]])[:, 0]},
    "divides": lambda b: {"x": b["litres"] / b["pumps"]},
    "prints": lambda b: (print("hello"), {"x": b["litres"]})[1],
}  # fmt: skip


@pytest.mark.parametrize("kind", RIGHT)
def test_a_correct_function_is_not_rejected(kind: str) -> None:
    load(calculate=RIGHT[kind], window=WINDOW)


async def coroutine(b: Any) -> Any:
    await asyncio.sleep(0)
    return {"x": b["litres"]}


def generator(b: Any) -> Any:
    yield {"x": b["litres"]}


def takes_nothing() -> Any:
    return {}


class Plain:
    """Not a detector."""

    def __init__(self, features: Any) -> None:
        self.threshold = 1.0


class Broken(NearestValue):
    def __init__(self, features: Any) -> None:
        raise ValueError(f"no {features}")


F = {"features": ("litres",)}
DECLARED: dict[str, tuple[dict[str, Any], str]] = {
    "verify": ({"verify": "rules"}, "verify is 'rules' (str), expected a function"),
    "calculate": ({"calculate": {"x": 1}}, "calculate is {'x': 1} (dict), expected a function"),
    "no argument": ({"calculate": takes_nothing}, "calculate at unit/test_dry_run.py"),
    "two arguments": ({"verify": lambda batch, now: {}}, "cannot be called with one argument"),
    "coroutine": ({"calculate": coroutine}, "is a coroutine or generator function"),
    "generator": ({"calculate": generator}, "is a coroutine or generator function"),
    "detector's name": ({"detector": "NearestValue", **F}, "detector is 'NearestValue' (str)"),
    "a detector": ({"detector": NearestValue(["litres"]), **F}, "expected a function that creates a detector"),
    "no detector": ({"detector": Plain, **F}, "returns a Plain without process_many, snapshot, restore"),
    "no factory": ({"detector": lambda: None, **F}, "cannot be called with the features as its only argument"),
    "makes none": ({"detector": lambda features: None, **F}, "returns a NoneType without threshold"),
    "broken detector": ({"detector": Broken, **F}, "cannot be created: ValueError: no ('litres',)"),
    "one check": ({"checks": Range("litres", 0.0, 1.0)}, "expected a tuple of checks"),
    "check's name": ({"checks": ("Range",)}, "checks holds 'Range' (str), which is not a check"),
    "check's class": ({"checks": (Range,)}, "which is not a check"),
    "check's field": ({"checks": (Range(5, 0.0),)}, "field of a Range is 5 (int), expected text"),  # type: ignore[arg-type]
    "check's bound": ({"checks": (Range("litres", "0"),)}, "low of a Range is '0' (str), expected a number"),  # type: ignore[arg-type]
    "check's nothing": ({"checks": (Range("litres", float("nan")),)}, "low of a Range is nan"),
    "rate's per": ({"checks": (Rate("litres", 1.0, per=60),)}, "per of a Rate is 60 (int), expected a timedelta"),  # type: ignore[arg-type]
    "stuck's times": ({"checks": (Stuck("litres", 2.5),)}, "times of a Stuck is 2.5 (float)"),  # type: ignore[arg-type]
    "stuck's besides": ({"checks": (Stuck("litres", 2, 0.0),)}, "besides of a Stuck is 0.0 (float)"),  # type: ignore[arg-type]
    "required": ({"required": "id"}, "required is 'id' (str), expected a tuple of field names"),
    "a required": ({"required": ("id", 5)}, "a name in required is 5 (int), expected text"),
    "features": ({"features": "litres"}, "features is 'litres' (str)"),
    "features without order": ({"features": {"litres"}}, "features is {'litres'} (set)"),
    "previous": ({"previous": "litres"}, "previous is 'litres' (str)"),
    "key": ({"key": 5}, "key is 5 (int), expected text"),
    "id": ({"id": None}, "id is None (NoneType), expected text"),
    "sent": ({"sent": 5}, "sent is 5 (int), expected text"),
    "window": ({"window": 12}, "window is 12 (int), expected a Window"),
    "window's fields": ({"window": Window("litres", 3)}, "window.fields is 'litres' (str)"),  # type: ignore[arg-type]
    "window's size": ({"window": Window(("litres",), 3.0)}, "window.size is 3.0 (float)"),  # type: ignore[arg-type]
    "window's step": ({"window": Window(("litres",), 3, step=3_600)}, "window.step is 3600 (int)"),  # type: ignore[arg-type]
    "window's time": ({"window": Window(("litres",), 3, time=None)}, "window.time is None"),  # type: ignore[arg-type]
}  # fmt: skip


@pytest.mark.parametrize("kind", DECLARED)
def test_a_declaration_of_the_wrong_type_is_rejected(kind: str) -> None:
    declared, said = DECLARED[kind]
    (found,) = problems(**declared)
    assert found.startswith("event 'tank': ")
    assert said in found
    assert "unit/test_dry_run.py:" in found or declared.keys() & {"detector"}


def test_all_problems_are_reported_together() -> None:
    found = problems(
        required="id",
        checks=Range("litres"),
        detector="NearestValue",
        verify=as_array,
        calculate=returns_none,
    )
    assert len(found) == 5
    both = problems(calculate=lambda b: {"litres": b["litres"], "score": b["litres"], "x": [1.0, 2.0, 3.0]})
    assert all(word in both[0] for word in ("'litres'", "'score'", "'x'"))


def test_correct_is_called_with_one_row_at_a_time() -> None:
    load(correct=correct_nothing, checks=(Range("litres", 0.0, 9.0),))
    load(correct=lambda b: {"litres": [np.nan]})  # it is called with one row
    for function, said in (
        (lambda b: {"litres": b["litres"][:0]}, "shape"),
        (lambda b: {"litres": b["liters"]}, "KeyError: 'liters'"),
    ):
        (found,) = problems(correct=function)
        assert found.startswith("event 'tank': correct")
        assert said in found


def test_callable_objects_and_partial_functions_are_accepted() -> None:
    class Adding:
        def __call__(self, b: Any) -> Any:
            return {"x": b["litres"] + 1}

    def add(amount: float, b: Any) -> Any:
        return {"x": b["litres"] + amount}

    load(calculate=Adding())
    load(calculate=partial(add, 2.0))
    (found,) = problems(calculate=partial(add, "2"))  # type: ignore[arg-type]
    assert "unit/test_dry_run.py:" in found


def test_calculate_is_called_only_with_rows_that_pass_verify() -> None:
    """`calculate` may rely on the rules."""
    load(
        verify=lambda b: {"few": b["pumps"] < 3},
        calculate=lambda b: {"x": [[1, 2, 3].index(p) for p in b["pumps"]]},
    )


def test_the_shipped_events_and_the_events_of_the_tests_load() -> None:
    assert {"air_quality", "parcel"} <= set(load_registry().codecs)
    samples.registry()
    Registry.of([avro.EVERY], {"every": [avro.SCHEMA]})


def test_rows_are_generated_for_every_avro_type() -> None:
    rows = generate_rows(Registry.of([avro.EVERY], {"every": [avro.SCHEMA]}).codecs["every"])
    assert rows is not None
    assert (len(rows.batch), rows.ordinary) == (ORDINARY + WITHOUT_OPTIONAL + EXTREME, ORDINARY)
    missing = [row for row in range(len(rows.batch)) if rows.batch["maybe_text"][row] is None]
    assert set(missing) < set(range(ORDINARY, ORDINARY + WITHOUT_OPTIONAL))


def test_rows_are_generated_for_a_logical_type_on_the_wrong_underlying_type() -> None:
    spanning = {"name": "span", "type": {"type": "string", "logicalType": "timestamp-millis"}}
    raw = {**SCHEMA, "fields": [*SCHEMA["fields"], spanning, {**spanning, "name": "day", "type": "string"}]}
    assert generate_rows(Registry.of([Event(**USUAL)], {"tank": [raw]}).codecs["tank"]) is not None
    odd = {"type": "fixed", "name": "Odd", "size": 2, "logicalType": "decimal", "precision": 1, "scale": 0}
    raw = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "odd", "type": odd}]}
    assert generate_rows(Registry.of([Event(**USUAL)], {"tank": [raw]}).codecs["tank"]) is not None


@given(st.sampled_from(sorted(WRONG)), st.sampled_from(sorted(MASKS)))
def test_problems_of_both_functions_are_reported_together(calculation: str, rules: str) -> None:
    found = problems(calculate=WRONG[calculation][0], verify=MASKS[rules][0], window=WINDOW)
    assert {what.split(":")[1].split()[0] for what in found} == {"calculate", "verify"}


def test_a_module_is_rejected_with_its_file_and_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import json

    monkeypatch.chdir(tmp_path)
    (tmp_path / "events").mkdir()
    (tmp_path / "schemas").mkdir()
    (tmp_path / "schemas" / "tank.avsc").write_text(json.dumps(SCHEMA))
    (tmp_path / "events" / "tank.py").write_text(
        "from stream_app.api import Event, Range\n"
        "\n"
        "\n"
        "def verify(batch):\n"
        "    return batch['litres'] > 0\n"
        "\n"
        "\n"
        "def calculate(batch):\n"
        "    twice = 2 * batch['litres']\n"
        "    return {'twice': twise}\n"
        "\n"
        "\n"
        "EVENT = Event(name='tank', key='tank', required=('tank', 'time'), verify=verify,\n"
        "              calculate=calculate, checks=Range('litres', 0))\n"
    )
    try:
        with pytest.raises(ConfigError) as caught:
            load_registry()
    finally:
        sys.modules.pop("events.tank", None)
    found = [problem.what for problem in caught.value.problems]
    assert len(found) == 3
    for word in ("(events/tank.py:4)", "(events/tank.py:10)", "(events/tank.py:13)"):
        assert any(word in what for what in found), (word, found)


def test_warning_filters_and_numpy_error_state_are_restored() -> None:
    import warnings

    filters, errors = list(warnings.filters), np.geterr()

    def rude(b: Any) -> Any:
        warnings.simplefilter("error")
        np.seterr(all="raise")
        return {"x": b["litres"]}

    load(calculate=rude)
    assert list(warnings.filters) == filters
    assert np.geterr() == errors


def test_a_window_has_at_least_one_step() -> None:
    (found,) = problems(window=Window(("litres",), 0, step=timedelta(0)))
    assert "its window is empty" in found
