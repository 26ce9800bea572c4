"""Fault switches of the embedded AWS: throttling, outages, retention, expired iterators.

In a test with `moto.mock_aws`: `with injected(ThrottlePuts(share=0.2)): ...`. On a server: `LocalAws.inject(...)`, or
a POST of the same as JSON to `/stream-app/faults`. Throttles are spread evenly and are the same in every run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

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
    """This share (0 to 1) of the records written to a stream ("*": any) fails with ProvisionedThroughputExceeded.

    An entry of PutRecords fails alone; PutRecord raises. 0 ends it.
    """

    share: float
    stream: str = "*"


class ThrottleReads(_Fault, frozen=True, tag="throttle_reads"):
    """This share (0 to 1) of the GetRecords calls on a stream ("*": any) is refused. 0 ends it."""

    share: float
    stream: str = "*"


class Fail(_Fault, frozen=True, tag="fail"):
    """The next `calls` calls of a service, or of one action of it, are answered with an HTTP `status`.

    `service` is the name that requests are signed with ("kinesis", "dynamodb", "s3", "sqs", "events"); `action` the
    operation's name ("PutItem"), for S3 the HTTP method ("PUT"). `code` is the service's own for 500 and 503 if
    not given.
    """

    service: str
    calls: int = 1
    status: int = 503
    code: str = ""
    action: str | None = None


class Trim(_Fault, frozen=True, tag="trim"):
    """Records older than `before` (ms since the epoch) are gone as when the retention period has passed.

    With `sequence` instead: the records of that number's shard before it. With neither: all there are now.
    """

    stream: str
    before: int | None = None
    sequence: str | None = None
    account: str = ACCOUNT
    region: str = REGION


class ExpireIterators(_Fault, frozen=True, tag="expire_iterators"):
    """Every shard iterator that was given out until now has expired."""


Fault = ThrottlePuts | ThrottleReads | Fail | Trim | ExpireIterators


def decode(body: bytes) -> list[Fault]:
    """Faults from JSON: one object, or a list of them; `fault` names the kind. Raises ConfigError."""
    try:
        found: Fault | list[Fault] = msgspec.json.decode(body, type=Fault | list[Fault])
    except msgspec.MsgspecError as error:
        hint = "kinds are throttle_puts, throttle_reads, fail, trim, expire_iterators"
        raise ConfigError([Problem(f"not a fault: {error}", hint)]) from error
    return found if isinstance(found, list) else [found]


def inject(fault: Fault) -> int:
    """Set a switch, or trim; of a Trim, how many records went, else 0. Raises ConfigError of a senseless one."""
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
    """All switches off. What was trimmed stays trimmed."""
    FAULT_SWITCHES.clear()


@contextmanager
def injected(*faults: Fault) -> Iterator[None]:
    """These faults, and at the end none."""
    try:
        for fault in faults:
            inject(fault)
        yield
    finally:
        clear()


def current() -> dict[str, Any]:
    """What is switched on, as JSON values."""
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
        *([Problem(f"calls {fault.calls} is below 1", "say how many calls fail")] if fault.calls < 1 else []),
        *(
            [Problem(f"status {fault.status} is no failure", "400 to 599")]
            if not 400 <= fault.status <= 599
            else []
        ),
    ]
    if problems:
        raise ConfigError(problems)
    named = _CODES.get(fault.status, {}).get(fault.service) or _DEFAULT_CODES.get(fault.status, "Unavailable")
    return Outage(fault.service, fault.calls, fault.status, fault.code or named, fault.action)


def _trim(fault: Trim) -> int:
    # Only here, because it imports moto.
    from moto.kinesis.models import kinesis_backends

    from stream_app.local.moto_patches.kinesis.streams import state_of

    stream = kinesis_backends[fault.account][fault.region].streams.get(fault.stream)
    if stream is None:
        raise ConfigError([Problem(f"no stream {fault.stream} to trim", "create it first, in this region")])
    state = state_of(stream)
    with state.lock:
        if fault.sequence is not None:
            trimmed = state.trim_to(int(fault.sequence)) if fault.sequence.isdecimal() else None
            if trimmed is None:
                raise ConfigError(
                    [Problem("no sequence number of this stream", "give one that it issued a record")]
                )
            return trimmed
        return state.trim(fault.before)
