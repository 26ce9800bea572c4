"""The messages of one queue, in O(log n) a message: what can be received now, later, or is in flight.

moto keeps a list and walks through it several times for every message that is received, deleted or counted, and
replaces it while another thread adds to it, so that a message can vanish. With 20,000 messages queued a batch of ten
takes seconds.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from moto.sqs.models import Message

# A handle that was used up stays known, because deleting twice is no error; for so many.
_REMEMBERED_HANDLES = 100_000


@dataclass(slots=True, eq=False)
class _Entry:
    """A message's place: `due` is when it can be received again (ms), None when it can now."""

    place: int
    group: str | None
    message: Message
    handles: list[str] = field(default_factory=list)
    due: float | None = None
    in_flight: bool = False


class QueueStore:
    """Not thread-safe: lock around it. Times are ms since the epoch and come from the caller.

    A FIFO queue's messages have a group; while one of a group is in flight, the group's others wait. The messages of
    a standard queue are of no group and never wait for one another.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._by_handle: dict[str, _Entry] = {}
        self._used_handles: OrderedDict[str, None] = OrderedDict()
        self._next = 0
        # Places of receivable messages per group, and the foremost place of each group that is not locked.
        self._ready: dict[str | None, list[int]] = {}
        self._heads: list[tuple[int, str | None]] = []
        self._waiting: list[tuple[float, int]] = []
        self._locked: dict[str | None, int] = {}
        self._flying = 0
        self._delayed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def messages(self) -> list[Message]:
        """All of them, in the order in which they came."""
        return [entry.message for entry in self._entries.values()]

    def add(self, message: Message, group: str | None, due: float | None) -> int:
        """Append a message that can be received from `due` on; its place is returned."""
        entry = _Entry(self._next, group, message, due=due)
        self._entries[entry.place] = entry
        self._next += 1
        if due is None:
            self._make_ready(entry)
        else:
            self._delayed += 1
            heapq.heappush(self._waiting, (due, entry.place))
        return entry.place

    def counts(self, now: float) -> tuple[int, int, int]:
        """How many are visible, in flight, delayed."""
        self._wake(now)
        return len(self._entries) - self._flying - self._delayed, self._flying, self._delayed

    def visible(self, now: float) -> list[Message]:
        """What is neither in flight nor delayed."""
        self._wake(now)
        return [entry.message for entry in self._entries.values() if entry.due is None]

    def take(self, now: float, count: int, hand_out: Callable[[Message], float | None]) -> list[Message]:
        """Receive up to `count` messages. `hand_out` prepares one and says until when it is in flight.

        It returns None for a message that must leave the queue instead; that one does not count.
        """
        self._wake(now)
        taken: list[_Entry] = []
        while len(taken) < count and (entry := self._pop_head()) is not None:
            due = hand_out(entry.message)
            if due is None:
                self._forget(entry)
                continue
            handle = str(entry.message.receipt_handle)
            entry.handles.append(handle)
            self._by_handle[handle] = entry
            entry.due, entry.in_flight = due, True
            self._flying += 1
            heapq.heappush(self._waiting, (due, entry.place))
            taken.append(entry)
        for entry in taken:
            if entry.group is not None:
                self._locked[entry.group] = self._locked.get(entry.group, 0) + 1
        return [entry.message for entry in taken]

    def knows(self, handle: str) -> bool:
        """Whether a message that is still here was ever received under `handle`."""
        return handle in self._by_handle

    def delete(self, handle: str) -> bool:
        """Remove the message that was ever received under `handle`; False when there never was one."""
        entry = self._by_handle.get(handle)
        if entry is None:
            return handle in self._used_handles
        self._land(entry)
        self._forget(entry)
        return True

    def postpone(self, handle: str, now: float, due: float) -> Message | None:
        """Let a message that is in flight be receivable from `due` on; None when it is not in flight."""
        self._wake(now)
        entry = self._by_handle.get(handle)
        if entry is None or not entry.in_flight:
            return None
        entry.due = due
        if due <= now:
            self._land(entry)
            self._make_ready(entry)
        else:
            heapq.heappush(self._waiting, (due, entry.place))
        return entry.message

    def next_due(self) -> float | None:
        """When the next message that waits becomes receivable; None when none waits."""
        return self._waiting[0][0] if self._waiting else None

    def _wake(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            due, place = heapq.heappop(self._waiting)
            entry = self._entries.get(place)
            # A due time that has since been changed leaves its old entry in the heap.
            if entry is not None and entry.due == due:
                if entry.in_flight:
                    self._land(entry)
                else:
                    self._delayed -= 1
                self._make_ready(entry)

    def _make_ready(self, entry: _Entry) -> None:
        entry.due = None
        ready = self._ready.setdefault(entry.group, [])
        heapq.heappush(ready, entry.place)
        if ready[0] == entry.place and entry.group not in self._locked:
            heapq.heappush(self._heads, (entry.place, entry.group))

    def _pop_head(self) -> _Entry | None:
        """The foremost receivable message whose group is free."""
        while self._heads:
            place, group = heapq.heappop(self._heads)
            ready = self._ready.get(group)
            # Outdated: the group was locked, or another message has come before or gone since.
            if group in self._locked or not ready or ready[0] != place:
                continue
            heapq.heappop(ready)
            self._offer(group)
            entry = self._entries.get(place)
            if entry is not None and entry.due is None:
                return entry
        return None

    def _offer(self, group: str | None) -> None:
        if ready := self._ready.get(group):
            heapq.heappush(self._heads, (ready[0], group))
        else:
            self._ready.pop(group, None)

    def _land(self, entry: _Entry) -> None:
        """It is no longer in flight; the last of its group to land frees the group."""
        if not entry.in_flight:
            return
        entry.in_flight = False
        self._flying -= 1
        if entry.group is None:
            return
        self._locked[entry.group] -= 1
        if self._locked[entry.group] == 0:
            del self._locked[entry.group]
            self._offer(entry.group)

    def _forget(self, entry: _Entry) -> None:
        del self._entries[entry.place]
        for handle in entry.handles:
            del self._by_handle[handle]
            self._used_handles[handle] = None
        while len(self._used_handles) > _REMEMBERED_HANDLES:
            self._used_handles.popitem(last=False)
