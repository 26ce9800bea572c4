"""Some inputs of every fuzzer; `make soak` tries millions."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import LONG_RUN, fuzzer

_INPUTS = 2_000


@pytest.mark.parametrize("name", LONG_RUN)
def test_a_short_fuzz_run_finds_no_error(name: str) -> None:
    fuzzer(name)(20_260_101, _INPUTS)
