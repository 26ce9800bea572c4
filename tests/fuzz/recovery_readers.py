"""Fuzzes the readers of recovery documents: each must return a value or raise a documented error."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
import pyarrow as pa

from stream_app.cli.views.names import short_shard
from stream_app.errors import ConfigError, FatalError, StreamAppError
from stream_app.model.segment import utc_datetime
from stream_app.pipeline.registry import Registry
from stream_app.recovery import bounded as bounds
from stream_app.recovery.audit import accounts, checkpoints
from stream_app.recovery.correct import history_entry, queue
from stream_app.recovery.correct.rewriting import segment
from stream_app.recovery.dead_letters import DeadLetter, parse
from stream_app.recovery.find.payload import readable_payload
from stream_app.recovery.find.query import cause
from stream_app.recovery.hydrate import results as dead_letters
from stream_app.recovery.hydrate import shapes
from stream_app.recovery.redrive import manifests, message
from stream_app.recovery.redrive.ledger import items
from stream_app.recovery.redrive.plan import file as plan_file
from stream_app.recovery.repair.file import Repair, parse_repair
from stream_app.recovery.repair.steps import matches, repaired
from stream_app.recovery.store import failure, failure_key, load, parse_key
from stream_app.recovery.stream import kpl
from tests import samples
from tests.fuzz.mutations import mutated
from tests.fuzz.watch import bounded

_DEEP = tuple(opening * depth for opening in (b"[", b'{"a":') for depth in (90, 200, 990, 5_000))
_HOSTILE = (
    *_DEEP,
    *(b"[" * depth + b"]" * depth for depth in (70, 300, 985, 3_000)),
    *(b'{"a":' * depth + b"1" + b"}" * depth for depth in (70, 300, 985)),
    *(
        b"9" * 4_300,
        b"9" * 4_301,
        b'"' + b"9" * 4_301 + b'"',
        b'"-"',
        b'"\xc2\xb2"',
        b'"\xd9\xa3"',
        b'\\"' * 500,
    ),
)


class Reader(NamedTuple):
    """A reader under test: valid inputs, documented errors, and a function that reads and uses the value."""

    inputs: Sequence[bytes]
    raises: tuple[type[Exception], ...]
    read: Callable[[bytes], object]


def fuzz(seed: int, count: int) -> None:
    """Test `count` documents. Raises AssertionError, with the document, for any undocumented error."""
    rng = random.Random(seed)
    readers = list(READERS.items())
    for _ in range(count):
        name, reader = rng.choice(readers)
        data = _mutated(rng.choice(reader.inputs), rng, reader.inputs)
        with bounded((name, data)):
            try:
                reader.read(data)
            except reader.raises:
                pass
            except BaseException as error:
                raise AssertionError(f"{name} raised {error!r:.300} for {data[:2_000]!r}") from error


def _mutated(data: bytes, rng: random.Random, others: Sequence[bytes]) -> bytes:
    for _ in range(rng.choice((0, 0, 1, 1, 2))):
        start = rng.randrange(len(data) + 1)
        data = data[:start] + rng.choice(_HOSTILE) + data[start + rng.choice((0, 0, 1, 8)) :]
    if rng.random() < 0.3:
        data = _replaced(data, rng)
    return mutated(data, rng, others) if rng.random() < 0.7 else data


def _replaced(data: bytes, rng: random.Random) -> bytes:
    """Replace one value of a JSON document and keep the rest intact."""
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        return data
    value = document
    while isinstance(value, dict | list) and value:
        place = rng.choice(list(value) if isinstance(value, dict) else range(len(value)))
        if rng.random() < 0.4 or not isinstance(value[place], dict | list):
            marked = value[place] = f"marker-{rng.random()}"
            return json.dumps(document).encode().replace(json.dumps(marked).encode(), rng.choice(_HOSTILE))
        value = value[place]
    return data


def _dead_letter(data: bytes) -> None:
    dead_letter = parse(data)
    stored = failure(dead_letter, data)
    assert load(msgspec.json.encode(stored)).key == stored.key


def _shape(data: bytes) -> None:
    found = shapes.read(data)
    if isinstance(found, shapes.Range | DeadLetter):
        dead_letters.record_key(found)
        _dead_letter_record(msgspec.json.encode(dead_letters.record_of(found, dead_letters.State.WAITING)))


def _dead_letter_record(data: bytes) -> None:
    found = dead_letters.parse_record(data)
    if found is not None:
        bounds.to_plain(found)
        utc_datetime(found.deadline or found.arrived)


def _entry(item: Mapping[str, Any]) -> None:
    found = history_entry.entry_of(item)
    utc_datetime(found.at)
    utc_datetime(found.done_at or 0)


def _attempt(item: Mapping[str, Any]) -> None:
    found = items.from_item(item)
    utc_datetime(found.claimed_at)
    utc_datetime(found.settled_at)


def _stored_failure(data: bytes) -> None:
    stored = load(data)
    json.dumps(bounds.to_plain(stored))
    cause(stored)
    _payload(stored.data or b"")
    parse_key(stored.key)


def _payload(data: bytes) -> None:
    json.dumps(readable_payload(data, _REGISTRY).value, indent=2)
    found = message.read(data, _REGISTRY)
    if found is not None:
        for repair in _REPAIRS:
            changed = message.apply_repair(found, repair)
            if isinstance(changed, message.Message):
                json.dumps(changed.detail)
        message.event_id(found, _REGISTRY)
        message.device(found, _REGISTRY, "k")


def _plan(data: bytes) -> None:
    plan = plan_file.parse(data)
    plan_file.parse(plan_file.to_text(plan))


def _resealed_plan(data: bytes) -> None:
    """Read a plan with valid digests, regardless of its content."""
    try:
        plan = bounds.decoded(data, plan_file.Plan, deepest=1_000)
        text = msgspec.json.encode(plan_file.with_digests(plan))
    except (ValueError, RecursionError):
        return
    _plan(text)


def _repair(data: bytes) -> None:
    try:
        document = json.loads(data)
    except RecursionError:
        return
    repair = parse_repair(document)
    for record in _RECORDS:
        matches(record, repair)
        repaired(record, repair)


def _aggregate(data: bytes) -> None:
    whole = kpl.MAGIC + data + hashlib.md5(data, usedforsecurity=False).digest()
    found = kpl.aggregate(whole)
    if found is not None:
        assert all(-1 <= record.hash_key <= 2**128 for record in found.records)
        kpl.delivered(found.records, 0, 2**127)
        assert bool(found.why) == bool(found.unreadable)


def _audited_manifest(data: bytes) -> None:
    found = accounts.manifest_of(data)
    for token in [*found.repeated, *(one for tokens in found.parked.values() for one in tokens)]:
        assert accounts.token_order(token)


def _redrive_manifest(data: bytes) -> None:
    manifests.parse(data)


def _request(data: bytes) -> None:
    consumer = "air"
    queue.manual_key(queue.parse(data.decode("utf-8", "replace"), consumer))


def _item(read: Callable[[Mapping[str, Any]], object]) -> Callable[[bytes], None]:
    """Return a reader of DynamoDB items that are given as JSON."""

    def of_bytes(data: bytes) -> None:
        try:
            item = json.loads(data)
        except RecursionError:
            return
        if isinstance(item, dict):
            read({name: value for name, value in item.items() if _is_attribute(value)})

    return of_bytes


def _is_attribute(value: Any) -> bool:
    """Return whether DynamoDB can return this attribute value; the attribute type may be unexpected."""
    if not isinstance(value, dict) or len(value) != 1:
        return False
    ((kind, inside),) = value.items()
    match kind:
        case "S":
            return isinstance(inside, str)
        case "N":
            return (
                isinstance(inside, str)
                and re.fullmatch(r"-?\d{1,38}(\.\d{1,38})?", inside, re.ASCII) is not None
            )
        case "BOOL" | "NULL":
            return isinstance(inside, bool)
        case "M":
            return isinstance(inside, dict) and all(map(_is_attribute, inside.values()))
        case _:
            return False


def _lease(item: Mapping[str, Any]) -> None:
    class _Table:
        class exceptions:  # noqa: N801
            ResourceNotFoundException = LookupError

        def scan(self, **_request: Any) -> dict[str, Any]:
            return {"Items": [item]}

    table: Any = _Table()
    for text in checkpoints.read(table, "t").values():
        assert text in checkpoints.WORDS or accounts.token_order(text)


def _key(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    found = parse_key(text)
    if found is not None:
        assert found.position.order
        failure_key(found.consumer, found.position, found.partition_key or "", found.arrived)
    short_shard(text)


def _positions(data: bytes) -> None:
    """Read the sequence numbers of a stored file from an untrusted writer."""
    texts = data.decode("utf-8", "replace").split("/")
    table = pa.table({"sequence": texts, "sub": pa.array([0] * len(texts), pa.int64())})
    tokens = accounts.tokens_of(table)
    accounts.check_tokens(tokens)
    assert all(accounts.token_order(token) for token in tokens.to_pylist())


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


_REGISTRY: Registry = samples.registry()
_REPAIRS: tuple[Repair, ...] = tuple(
    parse_repair({"steps": [step]})
    for step in (
        {"do": "set", "field": "a.b.c", "value": {"x": [1]}},
        {"do": "rename", "field": "a", "to": "b.c"},
        {"do": "cast", "field": "value", "to": "integer"},
        {"do": "cast", "field": "value", "to": "time", "from": "ms"},
        {"do": "convert", "field": "value", "from": "°F", "to": "°C"},
    )
)
_RECORDS: tuple[dict[str, Any], ...] = (
    {"a": {"b": 1}, "value": "12", "$event": "reading"},
    {"a": [], "value": 10**400},
    {"value": float("inf")},
    {"value": "9" * 4_301},
)
_AT = 1_480_550_400_000
_SHARD = "shardId-000000000001"
_DEAD_LETTER_JSON = {
    "kind": "stream-app.dead-letter", "version": 1, "consumer": "air", "stream": "devices", "shard": _SHARD,
    "sequence": "100", "sub": 0, "partition_key": "Dongsi", "arrived": _AT, "event": "reading", "schema": None,
    "stage": "verify", "code": "RULE_BROKEN", "reason": "pm25 is 7", "segment": "90",
}  # fmt: skip
_DEAD_LETTER = parse(_json(_DEAD_LETTER_JSON))
_PAYLOADS = (
    b'{"event":"reading","id":"1","value":1.5}',
    _json({"detail-type": "reading", "detail": {"value": "12", "a": {"b": 1}}, "resources": ["k"]}),
    b"\xff\xfe",
    kpl.MAGIC + b"x" * 20,
    samples.encoded("reading", {"id": "a/1", "device": "a", "time": samples.START, "value": 3.5}, "avro"),
)
_RANGE = {
    "startSequenceNumber": "100", "endSequenceNumber": "200", "batchSize": 2, "shardId": _SHARD,
    "approximateArrivalOfFirstRecord": "2016-12-01T00:00:00.000Z",
    "approximateArrivalOfLastRecord": "2016-12-01T00:00:01.000Z",
    "streamArn": "arn:aws:kinesis:us-east-1:123456789012:stream/devices",
}  # fmt: skip
_PIPE = {
    "context": {
        "partnerResourceArn": "arn:aws:pipes:us-east-1:123456789012:pipe/p", "condition": "RetryAttemptsExhausted",
    },
    "version": "1.0", "timestamp": "2016-12-01T00:00:02.000Z", "KinesisBatchInfo": _RANGE,
}  # fmt: skip
_DEAD_LETTER_RECORD = msgspec.json.encode(
    dead_letters.record_of(_DEAD_LETTER, dead_letters.State.WAITING, reason="throttled", deadline=_AT)
)
_MANIFEST = {
    "first": {"position": "100"}, "last": {"position": "200.1"}, "repeated": ["101", "102.3"],
    "parked": {"RULE_BROKEN": ["103"]}, "stored": {},
}  # fmt: skip
_CORRECTION_EVENT = {
    "source": "stream-app", "detail-type": "CorrectionRequested",
    "detail": {"id": "i", "event": "reading", "consumer": "air", "shard": _SHARD, "sequence": "100", "arrived": _AT},
}  # fmt: skip
_REQUEST = {
    "id": "i", "event": "reading", "key": "k", "consumer": "air", "shard": _SHARD, "sequence": "100", "arrived": _AT,
}  # fmt: skip
_ATTEMPT = {
    "root": {"S": "r"}, "attempt": {"N": "1"}, "failure": {"S": "f"}, "plan": {"S": "p"}, "target": {"S": "bus"},
    "token": {"S": "t"}, "state": {"S": "sent"}, "receipt": {"M": {"shard": {"S": _SHARD}}},
    "claimed_at": {"N": "5"},
}  # fmt: skip
_PLAN = {
    "made_at": "2026-01-31T03:00:00Z", "by": "ann", "consumer": "air", "stream": "devices", "bucket": "b",
    "selection": {"codes": ["RULE_BROKEN"]}, "destination": {"kind": "bus", "name": "b"},
    "repair": {
        "steps": [{"do": "set", "field": "a", "value": [1]}],
        "when": [{"is": "matches", "field": "a", "pattern": "x+"}],
    },
    "newer": "apply", "max_redrives": 3, "count": 1, "sent": 1, "replayed": 0, "left_out": {}, "codes": {},
    "expected": {},
    "devices": 1, "oldest": None, "newest": None, "age_s": 1, "overtaken_count": 0, "overtaken": [],
    "sample": [{"key": "k", "code": "c", "reason": "r", "expected": "stored", "before": {"a": [1]}}],
    "selection_digest": "", "items": [{"key": "k", "attempt": 1, "device": "d", "expected": "stored"}], "others": [],
}  # fmt: skip
_SEALED = plan_file.to_text(plan_file.with_digests(msgspec.convert(_PLAN, plan_file.Plan))).encode()
_STEPS = {
    "name": "n",
    "when": [
        {"field": "$event", "is": "equals", "value": "x"},
        {"field": "a.b", "is": "matches", "pattern": "x"},
    ],
    "steps": [
        {"do": "set", "field": "a.b", "value": {"c": [1]}},
        {"do": "cast", "field": "value", "to": "number"},
    ],
}
_PACKED = b"\x0a\x01a\x12\x0242\x1a\x07\x08\x00\x10\x00\x1a\x01x\x1a\x05\x08\x00\x1a\x01y"

READERS: dict[str, Reader] = {
    "dead letter": Reader([_json(_DEAD_LETTER_JSON)], (ValueError,), _dead_letter),
    "dead-letter format": Reader(
        [
            _json(_PIPE),
            _json(_DEAD_LETTER_JSON),
            _json({"Type": "Notification", "Message": json.dumps(_PIPE)}),
        ],
        (ValueError,),
        _shape,
    ),
    "dead-letter record": Reader([_DEAD_LETTER_RECORD], (), _dead_letter_record),
    "stored failure": Reader(
        [msgspec.json.encode(failure(_DEAD_LETTER, data)) for data in (*_PAYLOADS, None)],
        (ValueError,),
        _stored_failure,
    ),
    "payload": Reader(_PAYLOADS, (), _payload),
    "plan": Reader([_SEALED], (ConfigError,), _plan),
    "sealed plan": Reader([_json(_PLAN), _SEALED], (ConfigError,), _resealed_plan),
    "repair": Reader([_json(_STEPS)], (ConfigError, ValueError), _repair),
    "aggregate": Reader([_PACKED], (), _aggregate),
    "manifest, audited": Reader([_json(_MANIFEST)], (ValueError,), _audited_manifest),
    "manifest, redrive": Reader([_json(_MANIFEST)], (), _redrive_manifest),
    "manifest, correction": Reader([_json(_MANIFEST)], (FatalError,), segment.parse_manifest),
    "correction request": Reader([_json(_CORRECTION_EVENT)], (ValueError,), _request),
    "history item": Reader(
        [_json({"request": {"S": json.dumps(_REQUEST)}, "at": {"N": "1"}, "done_at": {"N": "2"}})],
        (StreamAppError, ValueError),
        _item(_entry),
    ),
    "ledger item": Reader([_json(_ATTEMPT)], (StreamAppError, ValueError), _item(_attempt)),
    "ledger key": Reader(
        [_json({"root": {"S": "r"}, "attempt": {"N": "1"}})],
        (StreamAppError, ValueError),
        _item(items.place_of),
    ),
    "lease": Reader(
        [
            _json(
                {
                    "leaseKey": {"S": _SHARD},
                    "checkpoint": {"S": "7"},
                    "checkpointSubSequenceNumber": {"N": "1"},
                }
            )
        ],
        (StreamAppError, ValueError),
        _item(_lease),
    ),
    "failure key": Reader([failure(_DEAD_LETTER, b"{}").key.encode(), _SHARD.encode()], (), _key),
    "file sequence numbers": Reader([b"100/200/300"], (ValueError,), _positions),
}
