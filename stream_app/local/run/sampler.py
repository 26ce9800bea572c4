"""Samples CPU time and memory of the processes of a run, to find its bottleneck and memory growth."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self

import psutil

_INTERVAL_SECONDS = 0.5
_SHARED_MEMORY_SECONDS = 3.0  # Shared memory is sampled less often: it costs a millisecond per process.
_WITHOUT_CHILDREN = ("daemon", "devices")  # Their children are sampled as separate parts.
_CONSUMERS = ("daemon", "host")  # The consumers are their children and the host itself.
_BACKLOG_SHARE = 0.05  # A smaller share of unprocessed records at the end of sending is no backlog.


class Sample(NamedTuple):
    """Seconds since the start of the run, CPU seconds used so far, and resident memory in bytes."""

    at: float
    cpu_s: float
    memory: int


@dataclass(slots=True)
class Part:
    """The samples of one part of the application. `memory_at` is when its memory was last sampled."""

    samples: list[Sample] = field(default_factory=list)
    memory_at: float = 0.0

    def share(self, begin: float, end: float) -> float:
        """Return the CPU seconds used per second between two times."""
        within = [sample for sample in self.samples if begin <= sample.at <= end]
        if len(within) < 2 or within[-1].at == within[0].at:
            return 0.0
        return (within[-1].cpu_s - within[0].cpu_s) / (within[-1].at - within[0].at)


class Sampler:
    """Samples processes by part: the given process IDs, the daemon's JVM and its children, and this process."""

    def __init__(self, pids: Mapping[str, int]) -> None:
        self.parts: dict[str, Part] = {}
        self._pids: dict[str, Callable[[], int | None]] = {}
        self._used: dict[str, float] = {}
        self._seen: dict[int, float] = {}
        self._marks: dict[str, float] = {}
        self._started = time.monotonic()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sampler", daemon=True)
        for name, pid in {**pids, "devices": psutil.Process().pid}.items():
            self.watch(name, _fixed(pid))

    def watch(self, name: str, pid: Callable[[], int | None]) -> None:
        """Sample the process whose current ID `pid` returns.

        The children of `daemon`, and `host` with its children, form the part `consumers`, whose shared memory is
        counted once.
        """
        self._pids[name] = pid

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def mark(self, moment: str) -> None:
        """Record the current time under a name."""
        self._marks[moment] = time.monotonic() - self._started

    def _run(self) -> None:
        while not self._done.wait(_INTERVAL_SECONDS):
            self._sample()

    def _sample(self) -> None:
        now = time.monotonic() - self._started
        consumers: list[psutil.Process] = []
        for name, current_pid in list(self._pids.items()):
            pid = current_pid()
            if pid is None:
                continue
            try:
                process = psutil.Process(pid)
                children = process.children(recursive=True)
            except psutil.NoSuchProcess:
                continue
            if name in _CONSUMERS:
                consumers += [process, *children] if name == "host" else children
            if name != "host":
                self._add(name, [process] if name in _WITHOUT_CHILDREN else [process, *children], now)
        if consumers:
            self._add("consumers", consumers, now)

    def _add(self, name: str, processes: list[psutil.Process], now: float) -> None:
        part, used, memory = self.parts.setdefault(name, Part()), self._used.get(name, 0.0), 0
        due = now - part.memory_at >= _SHARED_MEMORY_SECONDS
        samples_memory = not part.samples or name != "consumers" or due
        for process in processes:
            try:
                times = process.cpu_times()
                memory += _memory(process, shared=name == "consumers") if samples_memory else 0
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            spent = times.user + times.system
            used += max(0.0, spent - self._seen.get(process.pid, 0.0))
            self._seen[process.pid] = spent
        self._used[name] = used
        if samples_memory:
            part.memory_at = now
        part.samples.append(Sample(now, used, memory if samples_memory else part.samples[-1].memory))

    def limit(self, sent: int, waiting: int) -> str:
        """Describe the bottleneck.

        If more than 5 % of the `sent` records were still `waiting` at the end of sending, it is the part other than
        the devices with the highest CPU usage, else it is the devices.
        """
        begin, end = self._marks.get("playing", 0.0), self._marks.get("stored", time.monotonic())
        shares = {name: part.share(begin, end) for name, part in self.parts.items()}
        usage = ", ".join(
            f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda x: -x[1])
        )
        others = {name: share for name, share in shares.items() if name != "devices"}
        if waiting <= _BACKLOG_SHARE * sent or not others:
            return f"devices: no backlog at the end of sending (CPU: {usage} of a core)"
        busiest = max(others, key=lambda name: others[name])
        return f"{busiest}: backlog of {waiting:,} records at the end of sending (CPU: {usage} of a core)"

    def memory(self) -> dict[str, dict[str, float]]:
        """Return the memory by part in MB, after a third of the time of processing (warm) and at its end."""
        begin, end = self._marks.get("playing", 0.0), self._marks.get("stored", time.monotonic())
        found = {}
        for name, part in self.parts.items():
            within = [sample for sample in part.samples if begin <= sample.at <= end]
            if within:
                third = within[len(within) // 3].memory
                found[name] = {"warm": round(third / 1e6, 1), "end": round(within[-1].memory / 1e6, 1)}
        return found


def _memory(process: psutil.Process, shared: bool) -> int:
    """Return the resident memory in bytes; if `shared`, the proportional set size where the system reports it."""
    rollup = Path(f"/proc/{process.pid}/smaps_rollup")
    if shared and rollup.exists():
        try:
            words = rollup.read_text().split()
        except OSError as error:
            raise psutil.NoSuchProcess(process.pid) from error
        return int(words[words.index("Pss:") + 1]) * 1024
    return int(process.memory_info().rss)


def _fixed(pid: int) -> Callable[[], int | None]:
    return lambda: pid
