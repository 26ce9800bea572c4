"""Sizes after decompression are exact for decodable records and limited for all others."""

from __future__ import annotations

import gzip
import struct

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.records import Payloads
from stream_app.pipeline.decode import decode
from stream_app.pipeline.readers.unpacked_size import unpacked_sizes
from tests.samples import as_json, registry

LIMIT = 4_096
REGISTRY = registry()
_bodies = st.one_of(
    st.binary(max_size=60),
    st.integers(0, 6_000).map(lambda size: b"a" * size),
    st.integers(0, 5_000).map(lambda size: as_json("reading", {"device": "a", "note": "x" * size})),
)
_packed = _bodies.map(lambda body: gzip.compress(body, mtime=0))
_payloads = st.one_of(
    _bodies,
    _packed,
    st.builds(lambda packed, size: packed[:-4] + struct.pack("<I", size), _packed, st.integers(0, 2**32 - 1)),
    st.builds(lambda packed, cut: packed[:cut], _packed, st.integers(0, 40)),
    st.builds(lambda first, second: first + second, _packed, st.one_of(_packed, st.just(b"\n"), _bodies)),
    st.binary(max_size=30).map(lambda data: b"\x1f\x8b" + data),
)


def sizes(payloads: list[bytes]) -> list[int]:
    return [int(size) for size in unpacked_sizes(Payloads.of(payloads), LIMIT)]


@given(st.lists(_payloads, max_size=12))
def test_the_size_is_exact_for_decodable_records_and_bounded_for_others(payloads: list[bytes]) -> None:
    found = sizes(payloads)
    _, failed = decode(Payloads.of(payloads), REGISTRY, LIMIT)
    undecoded = {failure.row for failure in failed if failure.code in ("UNDECODABLE", "TOO_LARGE")}
    for row, (payload, size) in enumerate(zip(payloads, found, strict=True)):
        assert len(payload) <= size <= max(len(payload), LIMIT)
        if row not in undecoded:
            body = gzip.decompress(payload) if payload[:2] == b"\x1f\x8b" else payload
            assert size == max(len(body), len(payload))


@given(st.lists(_payloads, max_size=12))
def test_the_size_depends_only_on_the_record(payloads: list[bytes]) -> None:
    assert sizes(payloads) == [size for payload in payloads for size in sizes([payload])]


def test_records_in_a_larger_array_are_measured_at_their_offsets() -> None:
    payloads = [b"x" * 70, gzip.compress(b"y" * 900), b"\x1f", b"", gzip.compress(b"z" * 100_000)]
    whole = Payloads.of(payloads)
    part = unpacked_sizes(whole.part(1, 5), LIMIT)
    assert part.tolist() == [900, 1, 0, LIMIT]
    assert unpacked_sizes(whole, LIMIT)[1:].tolist() == part.tolist()
    assert unpacked_sizes(whole.part(2, 2), LIMIT).dtype == np.int64
