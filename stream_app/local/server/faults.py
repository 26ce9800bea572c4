"""Fault injection for the embedded AWS: throttling, outages, trimmed records and expired iterators.

In a test with `moto.mock_aws`: `with injected(ThrottlePuts(share=0.2)): ...`. On a server: `LocalAws.inject(...)`, or
POST the fault as JSON to `/stream-app/faults`. Throttled calls are evenly spaced and the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypedDict

import msgspec

from stream_app.errors import ConfigError, Problem
from stream_app.local.moto_patches import clock
from stream_app.local.moto_patches.fault_switches import FAULT_SWITCHES, Outage, Share

ACCOUNT = "123456789012"
REGION = "us-east-1"
_CODES = {
    500: {"s3": "InternalError", "dynamodb": "InternalServerError"},
    503: {"s3": "SlowDown"},
}
_DEFAULT_CODES = {500: "InternalFailure", 503: "ServiceUnavailable"}


class _Fault(msgspec.Struct, frozen=True, tag_field="fault", forbid_unknown_fields=True):
    pass


class ThrottlePuts(_Fault, frozen=True, tag="throttle_puts"):
    """Throttles a share (0 to 1) of the records written to a stream ("*": any) with ProvisionedThroughputExceeded.

    Entries of PutRecords fail individually; PutRecord fails as a whole. 0 ends the throttling.
    """

    share: float
    stream: str = "*"


class ThrottleReads(_Fault, frozen=True, tag="throttle_reads"):
    """Throttles a share (0 to 1) of the GetRecords calls on a stream ("*": any). 0 ends the throttling."""

    share: float
    stream: str = "*"


class Fail(_Fault, frozen=True, tag="fail"):
    """Makes the next `calls` calls to a service, or to one of its actions, fail with an HTTP `status`.

    `service` is the signing name ("kinesis", "dynamodb", "s3", "sqs", "events"). `action` is the operation's name
    ("PutItem"), or the HTTP method for S3 ("PUT"). `code` defaults to the service's error code for 500 and 503.
    """

    service: str
    calls: int = 1
    status: int = 503
    code: str = ""
    action: str | None = None


class Trim(_Fault, frozen=True, tag="trim"):
    """Removes records as if their retention period had ended.

    Removes the records older than `before` (milliseconds since the epoch), or the records before the sequence number
    `sequence` in its shard. Without either, removes all current records.
    """

    stream: str
    before: int | None = None
    sequence: str | None = None
    account: str = ACCOUNT
    region: str = REGION


class ExpireIterators(_Fault, frozen=True, tag="expire_iterators"):
    """Expires all shard iterators issued until now."""


class Settings(TypedDict):
    """The fault switches that are on: throttled shares by stream, outages, and when iterators were expired (ms)."""

    throttle_puts: dict[str, float]
    throttle_reads: dict[str, float]
    fail: list[dict[str, object]]
    iterators_expired_at: int


Fault = ThrottlePuts | ThrottleReads | Fail | Trim | ExpireIterators


def decode(body: bytes) -> list[Fault]:
    """Decode one fault, or a list of faults, from JSON. The field `fault` is the kind. Raises ConfigError."""
    try:
        found: Fault | list[Fault] = msgspec.json.decode(body, type=Fault | list[Fault])
    except msgspec.MsgspecError as error:
        hint = "use throttle_puts, throttle_reads, fail, trim or expire_iterators"
        raise ConfigError([Problem(f"invalid fault: {error}", hint)]) from error
    return found if isinstance(found, list) else [found]


def inject(fault: Fault) -> int:
    """Activate a fault. Returns the number of records removed by a Trim, else 0. Raises ConfigError."""
    if isinstance(fault, ThrottlePuts):
        FAULT_SWITCHES.put_shares = _with(FAULT_SWITCHES.put_shares, fault)
    elif isinstance(fault, ThrottleReads):
        FAULT_SWITCHES.get_shares = _with(FAULT_SWITCHES.get_shares, fault)
    elif isinstance(fault, ExpireIterators):
        FAULT_SWITCHES.iterators_expired_at = clock.now_ms()
    elif isinstance(fault, Fail):
        FAULT_SWITCHES.outages = [*FAULT_SWITCHES.outages, _outage(fault)]
    else:
        return _trim(fault)
    return 0


def clear() -> None:
    """Turn all fault switches off. Trimmed records are not restored."""
    FAULT_SWITCHES.clear()


@contextmanager
def injected(*faults: Fault) -> Iterator[None]:
    """Activate faults for the duration of the context, then turn all fault switches off."""
    try:
        for fault in faults:
            inject(fault)
        yield
    finally:
        clear()


def current() -> Settings:
    """Return the current settings as JSON values."""
    return {
        "throttle_puts": {name: share.share for name, share in FAULT_SWITCHES.put_shares.items()},
        "throttle_reads": {name: share.share for name, share in FAULT_SWITCHES.get_shares.items()},
        "fail": [msgspec.to_builtins(outage) for outage in FAULT_SWITCHES.outages],
        "iterators_expired_at": FAULT_SWITCHES.iterators_expired_at,
    }


def _with(shares: Mapping[str, Share], fault: ThrottlePuts | ThrottleReads) -> dict[str, Share]:
    if not 0 <= fault.share <= 1:
        raise ConfigError([Problem(f"share {fault.share} is not between 0 and 1", "0 ends the throttling")])
    others = {name: share for name, share in shares.items() if name != fault.stream}
    return others | ({fault.stream: Share(fault.share)} if fault.share else {})


def _outage(fault: Fail) -> Outage:
    problems: Sequence[Problem] = [
        *(
            [Problem(f"calls {fault.calls} is below 1", "specify how many calls fail")]
            if fault.calls < 1
            else []
        ),
        *(
            [Problem(f"status {fault.status} is not an error status", "use 400 to 599")]
            if not 400 <= fault.status <= 599
            else []
        ),
    ]
    if problems:
        raise ConfigError(problems)
    default = _CODES.get(fault.status, {}).get(fault.service) or _DEFAULT_CODES.get(
        fault.status, "Unavailable"
    )
    return Outage(fault.service, fault.calls, fault.status, fault.code or default, fault.action)


def _trim(fault: Trim) -> int:
    # Imported here because moto is slow to import.
    from moto.kinesis.models import kinesis_backends

    from stream_app.local.moto_patches.kinesis.streams import state_of

    stream = kinesis_backends[fault.account][fault.region].streams.get(fault.stream)
    if stream is None:
        hint = "create it first, in the same region"
        raise ConfigError([Problem(f"the stream {fault.stream} does not exist", hint)])
    state = state_of(stream)
    with state.lock:
        if fault.sequence is not None:
            trimmed = state.trim_to(int(fault.sequence)) if fault.sequence.isdecimal() else None
            if trimmed is None:
                raise ConfigError(
                    [Problem("unknown sequence number", "use the sequence number of a record of the stream")]
                )
            return trimmed
        return state.trim(fault.before)
