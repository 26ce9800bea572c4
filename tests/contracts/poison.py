"""An event whose notes make its calculation crash or hang the process."""

from __future__ import annotations

import ctypes
import os
import re
import signal
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from stream_app.model.record import Batch
from stream_app.model.segment import Segment
from stream_app.pipeline.registry import Registry
from tests import samples


def leave() -> None:
    os._exit(0)


def leave_with_a_code() -> None:
    os._exit(7)


def keyboard_interrupt() -> None:
    raise KeyboardInterrupt


def loop() -> None:
    while True:
        pass


def loop_in_c() -> None:
    """Never return and never release the GIL (catastrophic backtracking)."""
    re.match("(a+)+$", "a" * 64 + "b")


def segmentation_fault() -> None:
    ctypes.string_at(0)


def killed() -> None:
    """Kill the process like the OOM killer."""
    os.kill(os.getpid(), signal.SIGKILL)


def aborted() -> None:
    os.abort()


POISONS = {
    act.__name__: act
    for act in (
        leave,
        leave_with_a_code,
        keyboard_interrupt,
        loop,
        loop_in_c,
        segmentation_fault,
        killed,
        aborted,
    )
}
AT_SINKS = "an encoder crashes"


def _calculate(batch: Batch) -> dict[str, NDArray[Any]]:
    for note in batch["note"].tolist():
        if note in POISONS:
            POISONS[note]()
    return {"doubled": 2 * batch["value"]}


POISONOUS = replace(samples.READING, calculate=_calculate, verify=None)


def registry() -> Registry:
    """Return a registry of the poisonous event and an ordinary one."""
    return Registry.of([POISONOUS, samples.STEP], {name: [raw] for name, raw in samples.SCHEMAS.items()})


def build(segment: Segment) -> None:
    """Stand in for the encoding step of a sink; a record with the note `AT_SINKS` ends the process."""
    for batch in segment.passed.values():
        if AT_SINKS in batch["note"].tolist():
            os._exit(9)
