"""The tiers of the suite: which command runs which tests.

The tier of a test follows from its folder. A slow test in a folder of the first tier is marked `@pytest.mark.second`.
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
"""The tier of each test folder."""

COMMANDS = {"first": "test", "second": "test-second", "faults": "faults", "soak": "soak", "bench": "bench"}
"""The Makefile target that runs each tier."""


def tier_of(folder: str, marks: Collection[str]) -> str:
    """Return the tier of a test. Raises ValueError if its folder and marks yield no tier or several."""
    marked = {mark for mark in marks if mark in COMMANDS}
    if folder not in FOLDERS:
        raise ValueError(f"tests/{folder} has no tier (expected one of {', '.join(FOLDERS)})")
    if marked - {"second"} or (marked and FOLDERS[folder] != "first"):
        raise ValueError(
            f"tests/{folder} belongs to the tier {FOLDERS[folder]}, but is marked {', '.join(sorted(marked))}"
        )
    return marked.pop() if marked else FOLDERS[folder]
