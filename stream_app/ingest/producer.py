"""Publishes records with several threads at a given pace, in order for each device."""

from __future__ import annotations

import math
import queue
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from zlib import crc32

from stream_app.ingest.delivery import Entry, Sender, bus_sender, deliver, requests, stream_sender
from stream_app.ingest.envelope import REPEATED, Expectation, OutgoingRecord
from stream_app.ingest.envelope import encoders as json_encoders
from stream_app.ingest.pacing import Pacer
from stream_app.ingest.publish_options import Destination, PublishOptions

Chunk = list[OutgoingRecord]

LINGER = 0.05  # seconds that a record waits for others to share its request
_MIN_WAIT = 0.001  # seconds; a shorter wait is added to the next one
_POLL_SECONDS = 0.1
_QUEUED = 4  # chunks per sender thread
_NAMED_ROWS = 20
_DEFAULTS = PublishOptions()


@dataclass(slots=True)
class Unsendable:
    """Records that cannot be sent for one reason: their number and the rows of the first ones."""

    count: int = 0
    rows: list[int] = field(default_factory=list)

    def add(self, row: int | None) -> None:
        """Count a record."""
        self.count += 1
        if row is not None and len(self.rows) < _NAMED_ROWS and row not in self.rows:
            self.rows.append(row)


@dataclass(frozen=True, slots=True)
class Sent:
    """The records sent, by route and by expected outcome: failure codes, "repeated", None for valid records.

    `again` is the number of retried entries, `unsent` that of records that were due when `stop` was set.
    `unsendable` are the skipped records that Kinesis cannot accept, by reason.
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
        """Total number of records."""
        return sum(self.by_route.values())

    @property
    def repeated(self) -> int:
        """Number of events that were sent a second time."""
        return self.expected.get(REPEATED, 0)

    @property
    def per_second(self) -> float:
        """Average number of records per second."""
        return self.sent / self.seconds if self.seconds else 0.0


@dataclass(slots=True)
class _Counts:
    progress: Callable[[int], None] | None
    by_route: Counter[str] = field(default_factory=Counter)
    expected: Counter[Expectation] = field(default_factory=Counter)
    again: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, route: str, entries: list[Entry], again: int) -> None:
        with self.lock:
            self.by_route[route] += len(entries)
            self.expected.update(entry.record.expected for entry in entries)
            self.again += again
            if self.progress is not None and entries:
                self.progress(self.by_route.total())


def publish(
    records: Iterable[OutgoingRecord],
    destination: Destination,
    options: PublishOptions = _DEFAULTS,
) -> Sent:
    """Send all records, in order for each device.

    A request whose response was lost is sent again, as by a real device; the application detects the duplicates by
    their IDs. A record whose key Kinesis cannot accept is skipped and counted in `Sent.unsendable`. Raises FatalError
    naming the first record that could not be delivered, ConfigError for an invalid rate or speed.
    """
    stop, clocks = options.stop or threading.Event(), options.clocks
    pacer = Pacer(options.rate, options.speed)
    counts = _Counts(options.progress)
    pool = _SenderPool(options, _senders(destination, options), counts, stop)
    began = clocks.clock()
    taken = pool.run(records, pacer)
    return Sent(
        dict(counts.by_route),
        dict(counts.expected),
        clocks.clock() - began,
        counts.again,
        taken - counts.by_route.total(),
        stop.is_set(),
        pool.unsendable,
    )


def _senders(destination: Destination, options: PublishOptions) -> dict[str, Sender]:
    encoders = json_encoders() if options.encoders is None else options.encoders
    return {
        "bus": bus_sender(destination.events, destination.bus),
        "stream": stream_sender(
            destination.kinesis,
            destination.stream,
            encoders,
            destination.region,
            destination.account,
            options.clocks.new_id,
        ),
    }


class _SenderPool:
    """Distributes records to sender threads. The records of a device always go to the same thread."""

    def __init__(
        self,
        options: PublishOptions,
        senders: Mapping[str, Sender],
        counts: _Counts,
        stop: threading.Event,
    ) -> None:
        self._senders, self._via, self._retry = senders, options.via, options.retry
        self._counts, self._stop, self._clocks = counts, stop, options.clocks
        self._failed = threading.Event()
        self._pause = options.clocks.pause or stop.wait
        self._inboxes: list[queue.Queue[Chunk | None]] = [
            queue.Queue(_QUEUED) for _ in range(max(1, options.threads))
        ]
        self._chunks: list[Chunk] = [[] for _ in self._inboxes]
        self._max_chunk = senders[options.via].entries
        self.unsendable: dict[str, Unsendable] = {}

    def run(self, records: Iterable[OutgoingRecord], pacer: Pacer) -> int:
        """Distribute all records and wait for the senders. Returns the number of records distributed."""
        with ThreadPoolExecutor(len(self._inboxes), "sender") as pool:
            senders = [pool.submit(self._send_all, inbox) for inbox in self._inboxes]
            try:
                taken = self._distribute(records, pacer)
            except BaseException:
                self._failed.set()
                raise
            finally:
                self._stop_senders(senders)
        for sender in senders:
            sender.result()
        return taken

    def _distribute(self, records: Iterable[OutgoingRecord], pacer: Pacer) -> int:
        taken, flush_by = 0, math.inf
        for record in records:
            why = record.unsendable
            if why is not None:
                self.unsendable.setdefault(why, Unsendable()).add(record.row)
                continue
            now = self._clocks.clock()
            wait = pacer.wait(now, record.time)
            if now + wait > flush_by:
                self._flush()
                flush_by = math.inf
            self._sleep(wait)
            if self._is_stopping():
                break
            taken += 1
            number = crc32(record.key.encode()) % len(self._chunks)
            self._chunks[number].append(record)
            flush_by = min(flush_by, now + wait + LINGER)
            if len(self._chunks[number]) >= self._max_chunk:
                self._hand_over(number)
        self._flush()
        return taken

    def _sleep(self, seconds: float) -> None:
        """Sleep in short intervals, so that the failure of a sender ends it."""
        while seconds > _MIN_WAIT and not self._is_stopping():
            interval = min(seconds, _POLL_SECONDS)
            self._pause(interval)
            seconds -= interval

    def _flush(self) -> None:
        for number, chunk in enumerate(self._chunks):
            if chunk:
                self._hand_over(number)

    def _hand_over(self, number: int) -> None:
        chunk, self._chunks[number] = self._chunks[number], []
        while not self._is_stopping():
            try:
                self._inboxes[number].put(chunk, timeout=_POLL_SECONDS)
                return
            except queue.Full:
                continue

    def _stop_senders(self, senders: list[Future[None]]) -> None:
        for inbox, sender in zip(self._inboxes, senders, strict=True):
            while not sender.done():
                try:
                    inbox.put(None, timeout=_POLL_SECONDS)
                    break
                except queue.Full:
                    continue

    def _is_stopping(self) -> bool:
        return self._stop.is_set() or self._failed.is_set()

    def _send_all(self, inbox: queue.Queue[Chunk | None]) -> None:
        try:
            while (chunk := inbox.get()) is not None:
                if not self._is_stopping():
                    self._send(chunk)
        except BaseException:
            self._failed.set()
            raise

    def _send(self, chunk: Chunk) -> None:
        ordered = self._via == "bus"
        for sender, entries in requests(chunk, self._sender_of, self._clocks.now, ordered=ordered):
            left, again = deliver(
                sender, entries, self._retry, self._pause, self._clocks.rng, self._is_stopping
            )
            kept = {id(entry) for entry in left}
            self._counts.add(sender.route, [entry for entry in entries if id(entry) not in kept], again)
            if self._is_stopping():
                return

    def _sender_of(self, record: OutgoingRecord) -> Sender:
        return self._senders["stream" if self._via == "stream" else record.route]
