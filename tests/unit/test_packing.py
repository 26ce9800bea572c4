"""Serialized state round-trips with any number of frames."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.keyed_state.container import Buffer, Pieces, seal_parts, sealed, unseal_parts
from stream_app.pipeline.state import packing
from stream_app.pipeline.state.packing import compress_state, messagepack_pieces, read_container, unpack

_plain = st.none() | st.integers(-(2**63), 2**63) | st.text() | st.binary() | st.lists(st.text())
_states = st.recursive(
    st.dictionaries(st.text(), _plain), lambda inner: st.dictionaries(st.text(), inner | _plain), max_leaves=9
)


@given(_states, st.integers(1, 40))
def test_a_state_round_trips_with_any_frame_size(state: dict[str, Any], frame: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_FRAME", frame)
        assert unpack(compress_state(state)) == state
    assert msgspec.msgpack.decode(b"".join(messagepack_pieces(state))) == state


def _one_by_one(parts: list[bytes]) -> Iterator[Buffer]:
    """Yield each part from the same reused buffer."""
    room = bytearray(max(map(len, parts), default=0))
    for part in parts:
        room[: len(part)] = part
        yield memoryview(room)[: len(part)]


@given(st.lists(st.binary(max_size=200)), st.integers(1, 300))
def test_a_sealed_state_is_the_same_in_pieces_and_as_a_whole(parts: list[bytes], frame: int) -> None:
    def made() -> Pieces:
        return sealed("kind", [len(part) for part in parts], _one_by_one(parts))

    assert made().joined() == seal_parts("kind", parts)
    assert made().length == len(made().joined())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packing, "_FRAME", frame)
        found = unpack(compress_state({"detector": made(), "shown": memoryview(b"shown")}))
    assert found == {"detector": seal_parts("kind", parts), "shown": b"shown"}
    unsealed: list[Any] | None = unseal_parts("kind", found["detector"])
    assert unsealed == parts


@pytest.mark.parametrize("cut", [1, 5, 40])
def test_a_truncated_state_is_refused(cut: int) -> None:
    whole = compress_state({"keys": ["a", "b"] * 100, "windows": memoryview(bytes(range(256)) * 9)})
    with pytest.raises(ValueError, match="checksum"):
        read_container(whole[:-cut])
