"""`stream_app.testing.check`: it reports user functions that depend on the batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from stream_app.errors import ConfigError
from stream_app.events import parcel
from stream_app.events.air_quality import event as air_quality
from stream_app.model.record import Batch
from stream_app.testing import CheckError, check
from tests.samples import HOUR, READING, SCHEMAS, START, STEP

ROWS = [
    {"id": str(at), "device": "ab"[at % 2], "time": START + at * HOUR, "value": value, "note": note}
    for at, (value, note) in enumerate(
        zip(
            (1.0, 2.5, None, 101.0, 7.0, 7.5, 0.1, 3.0),
            (None, "a", "b", None, "calculate raises", *"cde"),
            strict=True,
        )
    )
]


def checked(rows: list[dict[str, Any]] = ROWS, **functions: Any) -> None:
    check(replace(READING, detector=None, **functions), rows, schema=SCHEMAS["reading"])


def test_correct_event_types_pass() -> None:
    for event in (READING, STEP):
        check(event, ROWS + ROWS[:3], schema=SCHEMAS[event.name])
    statuses = ("in_transit", "picked_up", "picked_up", "in_transit", "delivered", "signed", "lost")
    steps = [{"parcel": "p", "status": status, "time": START} for status in statuses]
    check(parcel.EVENT, [{"id": str(at), **step} for at, step in enumerate(steps)])
    readings = [
        {"id": str(at % 20), "station": "ab"[at % 2], "time": START + at * HOUR, "pm25": float(at)}
        for at in range(30)
    ]
    check(
        air_quality.EVENT, [{**row, "wind_direction": "N?"[at % 3 == 0]} for at, row in enumerate(readings)]
    )


def test_a_result_that_depends_on_the_batch_names_row_column_and_both_values() -> None:
    with pytest.raises(
        CheckError, match=r"row 0, column 'part': 7.0 \(float64\) in one .* 1.0 \(float64\) one"
    ) as caught:
        checked(calculate=lambda batch: {"part": batch["value"] / np.nansum(batch["value"]) * 0 + len(batch)})
    assert (caught.value.row, caught.value.column) == (0, "part")
    assert [float(value) for value in caught.value.values] == [7.0, 1.0]


def _few_only(batch: Batch) -> dict[str, Any]:
    return {"few": np.full(len(batch), len(batch) < 3)}


@pytest.mark.parametrize(
    ("functions", "says"),
    [
        (
            {"verify": lambda b: {"above the mean": b["value"] >= np.nanmean(b["value"])}},
            "row 0: parked .* stored one",
        ),
        ({"verify": _few_only, "calculate": None}, r"row 0: parked \(RULE_BROKEN in verify: few\)"),
        (
            {"calculate": lambda b: {"last": np.full(len(b), b["id"][-1], dtype=object)}},
            "column 'last': '7' .* '0' ",
        ),
        ({"calculate": lambda b: {"n": b["value"].astype(np.int64 if len(b) == 1 else float)}}, "column 'n'"),
        (
            {"calculate": lambda b: {"many": np.ones(len(b))} if len(b) > 1 else {}},
            "column 'many': .* absent",
        ),
    ],
)
def test_other_dependencies_on_the_batch_are_found(functions: dict[str, Any], says: str) -> None:
    rows = [row for row in ROWS if row["note"] != "calculate raises" and row["value"]]
    with pytest.raises(CheckError, match=says):
        checked(rows, **({"verify": None} | functions))


def _unlock(batch: Batch) -> dict[str, Any]:
    column = batch["value"]
    column.flags.writeable = True
    column[0] = 5.0
    return {"x": column}


def _in_place(batch: Batch) -> dict[str, Any]:
    batch["value"][0] = 5.0
    return {}


@pytest.mark.parametrize("function", [_unlock, _in_place])
@pytest.mark.parametrize("name", ["verify", "calculate"])
def test_a_function_that_modifies_its_input_is_named(function: Callable[[Batch], Any], name: str) -> None:
    functions: dict[str, Any] = {"verify": None, "calculate": None, name: function}
    with pytest.raises(CheckError, match=f"{name} modifies its input"):
        checked(**functions)


def test_matching_rows_and_schema_are_required() -> None:
    with pytest.raises(ValueError, match="no rows"):
        checked([])
    with pytest.raises(ConfigError):
        check(replace(READING, key="nothing"), ROWS, schema=SCHEMAS["reading"])
