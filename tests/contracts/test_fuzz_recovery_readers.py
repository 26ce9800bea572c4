"""What the fuzzer of recovery's readers begins with is valid; otherwise its mutations would try little."""

from __future__ import annotations

import pytest

from tests.fuzz.recovery_readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_each_reader_accepts_its_seed_inputs(name: str) -> None:
    for data in READERS[name].inputs:
        READERS[name].read(data)
