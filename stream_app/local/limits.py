"""Which part of a run was the limit, and whether memory stays flat: processor time and memory by part, sampled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType

import psutil

_EVERY = 1.0  # seconds between samples
_BUSY = 0.85  # share of a core from which a part that runs on one core counts as full
_TEN = 10


@dataclass(slots=True)
class Part:
    """One part's history: processor seconds used, and resident memory in bytes by second of the run."""

    cpu_s: float = 0.0
    memory: list[tuple[float, int]] = field(default_factory=list)


class Sampler:
    """Samples processes by part: those given by id, the daemon's JVM and its children, and this process."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.parts: dict[str, Part] = {}
        self._pids: dict[str, Callable[[], int | None]] = {}
        self._seen: dict[int, float] = {}
        self._started = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        for name, pid in pids.items():
            self.watch(name, lambda pid=pid: pid)  # type: ignore[misc]
        self.watch("devices", lambda: psutil.Process().pid)

    def watch(self, name: str, pid: Callable[[], int | None]) -> None:
        """Sample the process that `pid` gives at each moment; children of `daemon` are the part `consumers`."""
        self._pids[name] = pid

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        while not self._done.wait(_EVERY):
            self.sample()

    def sample(self) -> None:
        """Take one sample of every part."""
        now = time.monotonic() - self._started
        for name, ask in list(self._pids.items()):
            pid = ask()
            if pid is None:
                continue
            try:
                process = psutil.Process(pid)
                children = process.children(recursive=True)
                alone = name in ("daemon", "devices")
                self._add(name, [process] if alone else [process, *children], now)
                if name == "daemon":
                    self._add("consumers", children, now)
            except psutil.NoSuchProcess:
                continue

    def _add(self, name: str, processes: list[psutil.Process], now: float) -> None:
        part = self.parts.setdefault(name, Part())
        memory = 0
        for process in processes:
            try:
                times = process.cpu_times()
                memory += process.memory_info().rss
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            used = times.user + times.system
            part.cpu_s += max(0.0, used - self._seen.get(process.pid, 0.0))
            self._seen[process.pid] = used
        part.memory.append((now, memory))

    def limit(self) -> str:
        """In words: the part that used most processor time, its share of a core, and all others."""
        self.sample()
        elapsed = time.monotonic() - self._started
        shares = {name: part.cpu_s / elapsed for name, part in self.parts.items()}
        if not shares:
            return "unknown"
        told = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda x: -x[1]))
        busiest = max(shares, key=lambda name: shares[name])
        if shares[busiest] >= _BUSY:
            return f"{busiest} (of a core: {told})"
        return f"the devices' rate, no part was busy (of a core: {told})"

    def growth(self) -> dict[str, float]:
        """Memory by part in the last tenth of the run over that in the fourth tenth: 1.0 is flat."""
        found = {}
        for name, part in self.parts.items():
            sizes = [size for _, size in part.memory]
            tenth = len(sizes) // _TEN
            if tenth:
                early, late = sizes[3 * tenth : 4 * tenth], sizes[-tenth:]
                found[name] = (sum(late) / len(late)) / max(1.0, sum(early) / len(early))
        return found
