"""Fault switches of the embedded AWS: their current settings, which the patches query on each call.

`stream_app.local.server.faults` sets them. There is one set per process, as with moto's own state.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Share:
    """Selects a share of a series of calls, evenly spaced and deterministic; 0.25 selects each 4th."""

    share: float
    seen: int = 0

    def hit(self) -> bool:
        """Advance to the next call and return whether it is selected."""
        self.seen += 1
        return int(self.seen * self.share) > int((self.seen - 1) * self.share)


@dataclass(slots=True)
class Outage:
    """Makes the next `calls` calls to a service, or to one of its actions, fail with `status` and `code`."""

    service: str
    calls: int
    status: int
    code: str
    action: str | None = None

    def matches(self, service: str, action: str) -> bool:
        """Return whether the outage applies to this call."""
        return self.calls > 0 and self.service == service and self.action in (None, action)


@dataclass(slots=True)
class FaultSwitches:
    """All fault switches. In `put_shares` and `get_shares`, the stream name `"*"` matches every stream."""

    put_shares: dict[str, Share] = field(default_factory=dict)
    get_shares: dict[str, Share] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    iterators_expired_at: int = -1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def throttles_put(self, stream: str) -> bool:
        """Return whether the next record written to `stream` is throttled."""
        return self._hit(self.put_shares, stream)

    def throttles_get(self, stream: str) -> bool:
        """Return whether the next GetRecords call on `stream` is throttled."""
        return self._hit(self.get_shares, stream)

    def outage(self, service: str, action: str) -> Outage | None:
        """Return the outage that applies to this call, if any, and decrement its remaining calls."""
        if not self.outages:
            return None
        with self._lock:
            found = next((outage for outage in self.outages if outage.matches(service, action)), None)
            if found is not None:
                found.calls -= 1
                self.outages = [outage for outage in self.outages if outage.calls > 0]
            return found

    def clear(self) -> None:
        """Turn all switches off."""
        with self._lock:
            self.put_shares, self.get_shares, self.outages = {}, {}, []
            self.iterators_expired_at = -1

    def _hit(self, shares: dict[str, Share], stream: str) -> bool:
        if not shares:
            return False
        with self._lock:
            share = shares.get(stream) or shares.get("*")
            return share is not None and share.hit()


FAULT_SWITCHES = FaultSwitches()
