"""Each test belongs to one tier, and each tier is run by a command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.tiers import COMMANDS, FOLDERS, tier_of

TOP = Path(__file__).parents[2]
TESTS = TOP / "tests"


def recipes() -> dict[str, str]:
    """The targets of the Makefile with their commands."""
    text = (TOP / "Makefile").read_text()
    return dict(re.findall(r"^([a-z-]+):.*\n((?:\t.*\n)*)", text, flags=re.MULTILINE))


def test_every_test_file_is_in_a_folder_of_a_tier() -> None:
    folders = {path.relative_to(TESTS).parts[0] for path in TESTS.rglob("test_*.py")}
    assert folders == set(FOLDERS)


def test_each_test_of_this_session_has_one_tier(request: pytest.FixtureRequest) -> None:
    for item in request.session.items:
        assert len({mark.name for mark in item.iter_markers()} & set(COMMANDS)) == 1, item.nodeid


@pytest.mark.parametrize("tier", COMMANDS)
def test_a_target_selects_the_tier(tier: str) -> None:
    assert f"-m {tier} " in recipes()[COMMANDS[tier]]
    assert set(FOLDERS.values()) == set(COMMANDS)


def test_pytest_collects_the_folders_of_the_first_two_tiers(pytestconfig: pytest.Config) -> None:
    wanted = [f"tests/{folder}" for folder, tier in FOLDERS.items() if tier in ("first", "second")]
    assert pytestconfig.getini("testpaths") == wanted


def test_ci_runs_the_first_two_tiers() -> None:
    assert "for target in test test-second; do" in (TOP / ".ci" / "run").read_text()


def test_a_mark_moves_a_test_to_the_second_tier() -> None:
    assert tier_of("unit", {"parametrize"}) == "first"
    assert tier_of("contracts", {"second", "timeout"}) == "second"


@pytest.mark.parametrize(
    ("folder", "marks"),
    [("other", ()), ("unit", ("faults",)), ("e2e", ("second",)), ("unit", ("soak", "second"))],
)
def test_a_test_without_exactly_one_tier_is_refused(folder: str, marks: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=f"tests/{folder}"):
        tier_of(folder, marks)
