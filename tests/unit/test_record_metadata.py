"""Records of a segment as columns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from stream_app.model.record import Record
from stream_app.model.record_metadata import RecordMetadata, record_metadata

RECORDS = st.lists(
    st.builds(
        Record,
        data=st.binary(max_size=3),
        partition_key=st.text(max_size=3),
        sequence_number=st.integers(0, 10**56).map(str),
        approximate_arrival_timestamp=st.integers(0, 2**42),
        sub_sequence_number=st.integers(0, 3),
    ),
    max_size=12,
)


@given(RECORDS, st.integers(1, 5))
def test_metadata_equals_the_records_without_their_payload(records: list[Record], step: int) -> None:
    parts = RecordMetadata()
    for at in range(0, len(records), step):
        parts.add(records[at : at + step])
        assert (
            parts[at].sequence_number == records[at].sequence_number
        )  # joined in between, and added to again
    bare = [
        Record(
            b"",
            record.partition_key,
            record.sequence_number,
            record.approximate_arrival_timestamp,
            record.sub_sequence_number,
        )
        for record in records
    ]
    assert list(parts) == list(record_metadata(records)) == bare
    assert len(parts) == len(records)
    assert parts[-2:] == bare[-2:]
    assert parts.arrived.tolist() == [record.arrived for record in records]
