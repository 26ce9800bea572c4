"""Key numbers against a dict, and table slots by number against slots by key."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.keyed_state.indexed_keys import Numbered
from anomaly.keyed_state.table import Table
from stream_app.pipeline.state.key_index import KeyIndex
from tests.samples import splits

KEYS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.sampled_from(["", "a", "aa", "ab", "b" * 300]),
    st.integers(-(2**63), 2**64 - 1),
    st.none(),
    st.binary(max_size=4),
)


@given(keys=st.lists(KEYS, max_size=60), data=st.data())
def test_keys_are_numbered_in_order_of_appearance(keys: list[Any], data: st.DataObject) -> None:
    devices, known = KeyIndex(), dict[Any, int]()
    for part in data.draw(splits(keys)):
        expected = [known.setdefault(key, len(known)) for key in part]
        assert devices.slots(part).tolist() == expected
    assert devices.keys == list(known)
    assert len(devices) == len(known)


@pytest.mark.parametrize("count", [7, 8, 9, 5_000])
def test_the_index_grows_for_any_number_of_keys(count: int) -> None:
    devices, keys = KeyIndex(), [f"device {number}" for number in range(count)]
    assert devices.slots(keys[:1] * 3).tolist() == [0, 0, 0]
    assert devices.slots(keys[::-1]).tolist() == [*range(1, count), 0]
    assert devices.slots(keys).tolist() == [0, *reversed(range(1, count))]
    assert devices.keys == [keys[0], *keys[:0:-1]]


@given(
    keys=st.lists(st.sampled_from("abcdefgh"), max_size=60),
    most=st.integers(1, 9),
    plain=st.lists(st.booleans(), min_size=61, max_size=61),
    data=st.data(),
)
def test_lookups_by_number_and_by_key_give_the_same_slots(
    keys: list[str], most: int, plain: list[bool], data: st.DataObject
) -> None:
    by_key, by_number = (Table(most, {"n": ((), np.int64)}) for _ in range(2))
    ours, others = KeyIndex(), KeyIndex()
    others.slots(list("hgfedcba"))
    for part, no_numbers in zip(data.draw(splits(keys)), plain, strict=False):
        devices = data.draw(st.sampled_from([ours, ours, others]))
        if data.draw(st.booleans()):
            expected = data.draw(st.lists(st.sampled_from("abcdefgh")))
            by_number.expect(Numbered(expected, devices.slots(expected), devices))
        numbered: list[str] = part if no_numbers else Numbered(part, devices.slots(part), devices)
        for one, other in zip(by_key.take(part), by_number.take(numbered), strict=True):
            assert one.tolist() == other.tolist()
        assert by_key.order().tolist() == by_number.order().tolist()
