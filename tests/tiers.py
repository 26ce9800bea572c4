"""The tiers of the suite: which command runs which tests.

A test's folder gives its tier. In folders of the first tier a test that takes long carries `@pytest.mark.second`.
"""

from __future__ import annotations

from collections.abc import Collection

FOLDERS = {
    "unit": "first",
    "contracts": "first",
    "typing": "second",
    "e2e": "second",
    "faults": "faults",
    "soak": "soak",
    "bench": "bench",
}
"""The tier of each folder of tests."""

COMMANDS = {"first": "test", "second": "test-second", "faults": "faults", "soak": "soak", "bench": "bench"}
"""The target of the Makefile that runs each tier."""


def tier_of(folder: str, marks: Collection[str]) -> str:
    """Return the one tier of a test. Raises ValueError where its folder and its marks give none or several."""
    marked = {mark for mark in marks if mark in COMMANDS}
    if folder not in FOLDERS:
        raise ValueError(f"tests/{folder} has no tier (expected one of {', '.join(FOLDERS)})")
    if marked - {"second"} or (marked and FOLDERS[folder] != "first"):
        raise ValueError(
            f"tests/{folder} is of the tier {FOLDERS[folder]}, but marked {', '.join(sorted(marked))}"
        )
    return marked.pop() if marked else FOLDERS[folder]
