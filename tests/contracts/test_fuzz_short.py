"""Some inputs of every fuzzer; `make soak` tries millions."""

from __future__ import annotations

import pytest

from tests.fuzz.__main__ import LONG_RUN, fuzzer

_INPUTS = 2_000


@pytest.mark.parametrize("name", LONG_RUN)
def test_no_input_breaks_what_reads_it(name: str) -> None:
    fuzzer(name)(20_260_101, _INPUTS)
