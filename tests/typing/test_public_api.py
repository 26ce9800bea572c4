"""The public API is typed for users: mypy and pyright accept the modules beside this one in their strict modes."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.typing import user_detector, user_event, user_test

TOP = Path(__file__).parents[2]
FOLDER = "tests/typing"
MYPY = ["-m", "mypy", "--strict", FOLDER]
PYRIGHT = ["-m", "basedpyright", "--pythonpath", sys.executable]


def check(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=TOP, capture_output=True, text=True, timeout=250, check=False)


@pytest.mark.parametrize("arguments", [MYPY, PYRIGHT], ids=["mypy", "pyright"])
def test_strict_type_checkers_accept_a_users_code(arguments: list[str]) -> None:
    found = check(arguments)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("arguments", [MYPY[:-1], PYRIGHT], ids=["mypy", "pyright"])
def test_strict_type_checkers_find_a_mistake(arguments: list[str], tmp_path: Path) -> None:
    """Otherwise the test above could pass because the API is untyped."""
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from stream_app.api import Event, Range\n\nEVENT = Event(name=1, key='k', checks=(Range(),))\n"
    )
    found = check([*arguments, str(wrong)])
    assert found.returncode == 1
    assert found.stdout.count("error") >= 2, found.stdout


@pytest.mark.parametrize("package", ["stream_app", "anomaly"])
def test_a_package_says_that_it_is_typed(package: str) -> None:
    spec = find_spec(package)
    assert spec is not None
    assert spec.origin is not None
    assert (Path(spec.origin).parent / "py.typed").is_file()


def test_a_users_code_works() -> None:
    """What is type-checked is also run, so that it stays an example."""
    assert user_test.shares() == [n * 5.0 / 100.0 for n in range(12)]
    assert user_test.codes() == ["UNDECODABLE", "UNKNOWN_SCHEMA"]
    assert user_test.dependence() is None
    assert user_event.QUIET.detector is not None
    for make in (user_detector.OWN, user_detector.TREES, user_detector.DEVIATION, user_detector.RIVER):
        assert len(user_detector.replay(make, [1.0, 2.0, 1.0, 9.0])) == 4
