"""What the fault switches are set to, and the questions that the corrections ask them.

`stream_app.local.server.faults` sets them; one set serves the process, as moto's own state does.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field


@dataclass(slots=True)
class Share:
    """A share of a run of things, spread evenly and the same each time: with 0.25 the 4th, 8th, 12th … is hit."""

    share: float
    seen: int = 0

    def hit(self) -> bool:
        """Whether the next one is among them."""
        self.seen += 1
        return int(self.seen * self.share) > int((self.seen - 1) * self.share)


@dataclass(slots=True)
class Outage:
    """The next `calls` calls of a service (or of one action of it) are answered with `status` and `code`."""

    service: str
    calls: int
    status: int
    code: str
    action: str | None = None

    def meets(self, service: str, action: str) -> bool:
        """Whether it is about this call."""
        return self.calls > 0 and self.service == service and self.action in (None, action)


@dataclass(slots=True)
class Switches:
    """All of them. `"*"` among the throttles stands for every stream."""

    put_shares: dict[str, Share] = field(default_factory=dict)
    get_shares: dict[str, Share] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)
    iterators_expired_at: int = -1
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def throttles_put(self, stream: str) -> bool:
        """Whether the next record written to `stream` is throttled."""
        return self._hit(self.put_shares, stream)

    def throttles_get(self, stream: str) -> bool:
        """Whether the next GetRecords call on `stream` is throttled."""
        return self._hit(self.get_shares, stream)

    def outage(self, service: str, action: str) -> Outage | None:
        """The outage that this call falls into, used up by one; None when the service is up."""
        if not self.outages:
            return None
        with self._lock:
            found = next((outage for outage in self.outages if outage.meets(service, action)), None)
            if found is not None:
                found.calls -= 1
                self.outages = [outage for outage in self.outages if outage.calls > 0]
            return found

    def clear(self) -> None:
        """All off."""
        with self._lock:
            self.put_shares, self.get_shares, self.outages = {}, {}, []
            self.iterators_expired_at = -1

    def _hit(self, shares: dict[str, Share], stream: str) -> bool:
        if not shares:
            return False
        with self._lock:
            share = shares.get(stream) or shares.get("*")
            return share is not None and share.hit()


SWITCHES = Switches()
