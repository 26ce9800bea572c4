"""Which part of a run was the limit, and whether memory stays flat: processor time and memory by part, sampled."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

import psutil

_EVERY = 0.5  # seconds between samples
_SELDOM = 3.0  # seconds between looks at memory that is shared: each costs a millisecond a process
_ALONE = ("daemon", "devices")  # their children are parts of their own
_CONSUMERS = ("daemon", "host")  # whose children, and the host itself, are the consumers
_KEPT_UP = 0.05  # share of what was sent that may wait at the end of sending


class Sample(NamedTuple):
    """Seconds into the run, processor seconds used so far, resident memory in bytes."""

    at: float
    cpu_s: float
    memory: int


@dataclass(slots=True)
class Part:
    """One part's history."""

    samples: list[Sample] = field(default_factory=list)
    looked: float = 0.0

    def share(self, begin: float, end: float) -> float:
        """Processor seconds a second between two moments."""
        within = [sample for sample in self.samples if begin <= sample.at <= end]
        if len(within) < 2 or within[-1].at == within[0].at:
            return 0.0
        return (within[-1].cpu_s - within[0].cpu_s) / (within[-1].at - within[0].at)


class Sampler:
    """Samples processes by part: those given by id, the daemon's JVM and its children, and this process."""

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
        """Sample the process that `pid` gives at each moment.

        Children of `daemon`, and `host` with its own, are the part `consumers`: memory that they share counts once.
        """
        self._pids[name] = pid

    def __enter__(self) -> Sampler:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join(timeout=5)

    def mark(self, moment: str) -> None:
        """Remember this moment under a name."""
        self._marks[moment] = time.monotonic() - self._started

    def _run(self) -> None:
        while not self._done.wait(_EVERY):
            self._sample()

    def _sample(self) -> None:
        now = time.monotonic() - self._started
        consumers: list[psutil.Process] = []
        for name, ask in list(self._pids.items()):
            pid = ask()
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
                self._add(name, [process] if name in _ALONE else [process, *children], now)
        if consumers:
            self._add("consumers", consumers, now)

    def _add(self, name: str, processes: list[psutil.Process], now: float) -> None:
        part, used, memory = self.parts.setdefault(name, Part()), self._used.get(name, 0.0), 0
        looked = not part.samples or name != "consumers" or now - part.looked >= _SELDOM
        for process in processes:
            try:
                times = process.cpu_times()
                memory += _memory(process, shared=name == "consumers") if looked else 0
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
            spent = times.user + times.system
            used += max(0.0, spent - self._seen.get(process.pid, 0.0))
            self._seen[process.pid] = spent
        self._used[name] = used
        if looked:
            part.looked = now
        part.samples.append(Sample(now, used, memory if looked else part.samples[-1].memory))

    def limit(self, sent: int, waiting: int) -> str:
        """In words. When `waiting` of the `sent` were unprocessed at the end of sending, the busiest part behind
        the devices was the limit; else the devices were."""
        begin, end = self._marks.get("playing", 0.0), self._marks.get("stored", time.monotonic())
        shares = {name: part.share(begin, end) for name, part in self.parts.items()}
        told = ", ".join(f"{name} {share:.0%}" for name, share in sorted(shares.items(), key=lambda x: -x[1]))
        behind = {name: share for name, share in shares.items() if name != "devices"}
        if waiting <= _KEPT_UP * sent or not behind:
            return f"devices: everything kept up with them (of a core: {told})"
        busiest = max(behind, key=lambda name: behind[name])
        return (
            f"behind the devices, {busiest} the busiest: {waiting:,} waited at their end (of a core: {told})"
        )

    def memory(self) -> dict[str, dict[str, float]]:
        """By part, in MB: at the end of the time in which records came, and a third into it (after warm-up)."""
        begin, end = self._marks.get("playing", 0.0), self._marks.get("stored", time.monotonic())
        found = {}
        for name, part in self.parts.items():
            within = [sample for sample in part.samples if begin <= sample.at <= end]
            if within:
                third = within[len(within) // 3].memory
                found[name] = {"warm": round(third / 1e6, 1), "end": round(within[-1].memory / 1e6, 1)}
        return found


def _memory(process: psutil.Process, shared: bool) -> int:
    """Bytes in memory; `shared`: what several processes have in common is divided among them, where that is told."""
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
