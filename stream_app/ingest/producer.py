"""Sends a plan: paced, by several threads, each device's records in order."""

from __future__ import annotations

import math
import queue
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from random import Random
from typing import Any, Literal
from zlib import crc32

from stream_app.aws.retry import Policy
from stream_app.ingest.delivery import Entry, Sender, bus_sender, deliver, requests, stream_sender
from stream_app.ingest.envelope import REPEATED, Encode, Expectation, Sending
from stream_app.ingest.envelope import forms as json_forms
from stream_app.ingest.pacing import Pacer

Via = Literal["bus", "stream"]
Chunk = list[Sending]

LINGER = 0.05  # seconds that a record may wait for others to share its request
_SHORTEST = 0.001  # seconds; a shorter wait is made up for by the next one
_LOOK = 0.1  # seconds between looks at whether to stop
_QUEUED = 4  # chunks for each sender
_NAMED_ROWS = 20


@dataclass(slots=True)
class Unsendable:
    """Records that cannot be sent for one reason: their count, and the rows of the first of them."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int | None) -> None:
        """Count one."""
        self.count += 1
        if row is not None and len(self.rows) < _NAMED_ROWS and row not in self.rows:
            self.rows.append(row)


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent. `expected` counts what the application should make of it: codes, "repeated", None for good.

    `again` counts entries that were put more than once; `unsent` those that were due when `stop` was set.
    `unsendable` are those that Kinesis cannot take, by why, which were left out.
    """

    by_route: Mapping[str, int]
    expected: Mapping[Expectation, int]
    seconds: float
    again: int = 0
    unsent: int = 0
    stopped: bool = False
    unsendable: Mapping[str, Unsendable] = field(default_factory=dict)

    @property
    def sent(self) -> int:
        """Records in all."""
        return sum(self.by_route.values())

    @property
    def repeated(self) -> int:
        """Events that a device sent a second time."""
        return self.expected.get(REPEATED, 0)

    @property
    def per_second(self) -> float:
        """Records a second, over the whole time."""
        return self.sent / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Tally:
    progress: Callable[[int], None] | None
    by_route: Counter[str] = field(default_factory=Counter)
    expected: Counter[Expectation] = field(default_factory=Counter)
    again: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, route: str, entries: list[Entry], again: int) -> None:
        with self.lock:
            self.by_route[route] += len(entries)
            self.expected.update(entry.sending.expected for entry in entries)
            self.again += again
            if self.progress is not None and entries:
                self.progress(self.by_route.total())


@dataclass(frozen=True, slots=True)
class Clocks:
    """Clocks and chance. `clock` is in seconds and never goes back, `now` is the time of day, `new_id` an
    envelope's id. `pause` waits some seconds; None waits on `stop`, so that a stop ends it.
    """

    clock: Callable[[], float] = time.monotonic
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    rng: Random = field(default_factory=Random)
    new_id: Callable[[], Any] = uuid.uuid4
    pause: Callable[[float], object] | None = None


def publish(
    sendings: Iterable[Sending],
    events_client: Any,
    kinesis_client: Any,
    bus: str,
    stream: str,
    *,
    via: Via = "bus",
    rate: float | None = None,
    speed: float = math.inf,
    forms: Mapping[str, Encode] | None = None,
    threads: int = 2,
    retry: Policy | None = None,
    region: str = "us-east-1",
    account: str = "000000000000",
    progress: Callable[[int], None] | None = None,
    stop: threading.Event | None = None,
    dependencies: Clocks | None = None,
) -> Sent:
    """Send everything, in order for each device, at most `rate` a second and no faster than `speed` times the
    data's own time.

    `via` "bus" sends each by its own route; "stream" puts all onto the stream, 500 a request, for bulk loads:
    there a record that Kinesis refused may land behind a later one of the same device out of the same request,
    as PutRecords promises no order; by "bus" it never does. A request that was taken but whose answer was lost
    is put again, as by any device: the ids tell.

    `progress(n)` is called, by one sender at a time, with the number taken so far. `stop` ends early. Raises
    FatalError naming the first record that could not be delivered, ConfigError for a rate or speed that is none.
    A record whose key Kinesis cannot take is left out and counted (`Sent.unsendable`).
    """
    stop = stop or threading.Event()
    dependencies = dependencies or Clocks()
    pacer = Pacer(rate, speed)
    written = json_forms() if forms is None else forms
    doors = {
        "bus": bus_sender(events_client, bus),
        "stream": stream_sender(kinesis_client, stream, written, region, account, dependencies.new_id),
    }
    tally = _Tally(progress)
    crew = _Crew(threads, doors, via, retry or Policy(), tally, stop, dependencies)
    began = dependencies.clock()
    taken = crew.run(sendings, pacer)
    return Sent(
        dict(tally.by_route),
        dict(tally.expected),
        dependencies.clock() - began,
        tally.again,
        taken - tally.by_route.total(),
        stop.is_set(),
        crew.unsendable,
    )


class _Crew:
    """Sender threads, and the one that deals the records out to them: a device always has the same sender."""

    def __init__(
        self,
        threads: int,
        doors: Mapping[str, Sender],
        via: Via,
        retry: Policy,
        tally: _Tally,
        stop: threading.Event,
        dependencies: Clocks,
    ) -> None:
        self._doors, self._via, self._retry = doors, via, retry
        self._tally, self._stop, self._world = tally, stop, dependencies
        self._failed = threading.Event()
        self._pause = dependencies.pause or stop.wait
        self._inboxes: list[queue.Queue[Chunk | None]] = [
            queue.Queue(_QUEUED) for _ in range(max(1, threads))
        ]
        self._chunks: list[Chunk] = [[] for _ in self._inboxes]
        self._most = doors[via].entries
        self.unsendable: dict[str, Unsendable] = {}

    def run(self, sendings: Iterable[Sending], pacer: Pacer) -> int:
        """Deal everything out and wait for the senders. Returns how many records were taken from the plan."""
        with ThreadPoolExecutor(len(self._inboxes), "sender") as pool:
            senders = [pool.submit(self._send_all, inbox) for inbox in self._inboxes]
            try:
                taken = self._deal(sendings, pacer)
            except BaseException:
                self._failed.set()
                raise
            finally:
                self._dismiss(senders)
        for sender in senders:
            sender.result()
        return taken

    def _deal(self, sendings: Iterable[Sending], pacer: Pacer) -> int:
        taken, flush_by = 0, math.inf
        for sending in sendings:
            why = sending.unsendable
            if why is not None:
                self.unsendable.setdefault(why, Unsendable()).add(sending.row)
                continue
            now = self._world.clock()
            wait = pacer.wait(now, sending.time)
            if now + wait > flush_by:
                self._flush()
                flush_by = math.inf
            self._rest(wait)
            if self._over():
                break
            taken += 1
            number = crc32(sending.key.encode()) % len(self._chunks)
            self._chunks[number].append(sending)
            flush_by = min(flush_by, now + wait + LINGER)
            if len(self._chunks[number]) >= self._most:
                self._hand_over(number)
        self._flush()
        return taken

    def _rest(self, seconds: float) -> None:
        """In pieces, so that a sender's failure ends it."""
        while seconds > _SHORTEST and not self._over():
            piece = min(seconds, _LOOK)
            self._pause(piece)
            seconds -= piece

    def _flush(self) -> None:
        for number, chunk in enumerate(self._chunks):
            if chunk:
                self._hand_over(number)

    def _hand_over(self, number: int) -> None:
        chunk, self._chunks[number] = self._chunks[number], []
        while not self._over():
            try:
                self._inboxes[number].put(chunk, timeout=_LOOK)
                return
            except queue.Full:
                continue

    def _dismiss(self, senders: list[Future[None]]) -> None:
        for inbox, sender in zip(self._inboxes, senders, strict=True):
            while not sender.done():
                try:
                    inbox.put(None, timeout=_LOOK)
                    break
                except queue.Full:
                    continue

    def _over(self) -> bool:
        return self._stop.is_set() or self._failed.is_set()

    def _send_all(self, inbox: queue.Queue[Chunk | None]) -> None:
        try:
            while (chunk := inbox.get()) is not None:
                if not self._over():
                    self._send(chunk)
        except BaseException:
            self._failed.set()
            raise

    def _send(self, chunk: Chunk) -> None:
        ordered = self._via == "bus"
        for sender, entries in requests(chunk, self._sender_of, self._world.now, ordered=ordered):
            left, again = deliver(sender, entries, self._retry, self._pause, self._world.rng, self._over)
            kept = {id(entry) for entry in left}
            self._tally.add(sender.route, [entry for entry in entries if id(entry) not in kept], again)
            if self._over():
                return

    def _sender_of(self, sending: Sending) -> Sender:
        return self._doors["stream" if self._via == "stream" else sending.route]
