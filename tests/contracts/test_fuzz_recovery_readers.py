"""The seed inputs of the recovery fuzzer are valid; otherwise mutations would cover little."""

from __future__ import annotations

import pytest

from tests.fuzz.recovery_readers import READERS


@pytest.mark.parametrize("name", READERS)
def test_each_reader_accepts_its_seed_inputs(name: str) -> None:
    for data in READERS[name].inputs:
        READERS[name].read(data)
