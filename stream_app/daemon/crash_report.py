"""Analysis of crashed shard processes from the log lines of the daemon."""

from __future__ import annotations

from stream_app.consumer.quarantine.policy import CAREFUL_FROM
from stream_app.daemon.log import Line

_FAILED = frozenset({"child_failed", "child_silent", "child_timed_out", "child_exited"})
_PROGRESS = frozenset({"checkpoint", "record_quarantined"})


class CrashReport:
    """Decides whether another start of the daemon would bring the failed shards further.

    A shard gets further if it made progress (a checkpoint, or a record in quarantine) or if its next attempts lead to
    careful processing. A shard for which neither is known, for example because its state cannot be loaded, would fail
    again.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, int] = {}
        self._progressed: set[str] = set()
        self._failed: set[str] = set()

    def see(self, line: Line) -> None:
        """Process a log line of the daemon or of a shard."""
        event, shard = line.get("event"), line.get("shard")
        if shard is None:
            return
        if line.get("source") == "kcl" and event in _FAILED and (event != "child_exited" or line["code"]):
            self._failed.add(str(shard))
        elif line.get("source") == "app" and event in _PROGRESS:
            self._progressed.add(str(shard))
        elif line.get("source") == "app" and event == "attempt":
            number = line.get("attempt")
            self._attempts[str(shard)] = number if isinstance(number, int) else CAREFUL_FROM

    @property
    def recovering(self) -> bool:
        """Whether at least one shard failed and all failed shards get further at the next start."""
        return bool(self._failed) and all(self._gets_further(shard) for shard in self._failed)

    def _gets_further(self, shard: str) -> bool:
        return shard in self._progressed or self._attempts.get(shard, CAREFUL_FROM) < CAREFUL_FROM
