"""The floor: reads the same lines, decodes base64 and decodes each payload into a typed struct."""

from __future__ import annotations

import sys
from datetime import datetime

import msgspec

from stream_app.consumer.protocol.multilang import Message, ProcessRecords, ShardEnded


class Detail(msgspec.Struct, gc=False):
    """A reading."""

    id: str | None
    station: str
    time: datetime | int
    pm25: float | None = None
    pm10: float | None = None
    so2: float | None = None
    no2: float | None = None
    co: float | None = None
    o3: float | None = None
    temperature: float | None = None
    pressure: float | None = None
    dew_point: float | None = None
    rain: float | None = None
    wind_speed: float | None = None
    wind_direction: str | None = None
    sent_at: datetime | int | None = None


class Envelope(msgspec.Struct, rename={"detail_type": "detail-type"}, gc=False):
    """The EventBridge envelope of a reading."""

    detail_type: str
    detail: Detail
    id: str


def main() -> None:
    """Answer the daemon's messages until it closes stdin."""
    read, out = msgspec.json.Decoder(Message).decode, sys.stdout.buffer
    enveloped = msgspec.json.Decoder(Envelope).decode
    plain = msgspec.json.Decoder(Detail).decode
    while line := sys.stdin.buffer.readline():
        message = read(line)
        if isinstance(message, ProcessRecords):
            for record in message.records:
                try:
                    (enveloped if record.data[2:9] == b"version" else plain)(record.data)
                except msgspec.DecodeError:
                    continue
        if isinstance(message, ShardEnded):
            out.write(b'\n{"action":"checkpoint","sequenceNumber":null,"subSequenceNumber":null}\n')
            out.flush()
            sys.stdin.buffer.readline()
        out.write(b'\n{"action":"status","responseFor":"%s"}\n' % message.__struct_config__.tag.encode())
        out.flush()


if __name__ == "__main__":
    main()
