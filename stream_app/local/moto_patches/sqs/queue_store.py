"""The messages of one queue: visible, delayed and in flight. Operations take O(log n) per message.

moto keeps a list and iterates over it several times for each message received, deleted or counted: with 20,000
queued messages, receiving ten takes seconds. It also replaces the list while other threads append to it, which can
lose messages.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from moto.sqs.models import Message

# Number of receipt handles kept for deleted messages, because deleting a message twice is not an error.
_REMEMBERED_HANDLES = 100_000


@dataclass(slots=True, eq=False)
class _Entry:
    """A message and its position. `due` is the time (ms) when it becomes receivable; None if it is receivable now."""

    position: int
    group: str | None
    message: Message
    handles: list[str] = field(default_factory=list)
    due: float | None = None
    in_flight: bool = False


class QueueStore:
    """The messages of one queue. Not thread-safe. Times are milliseconds since the epoch, passed by the caller.

    Messages of a FIFO queue have a group; while one of them is in flight, the other messages of its group are not
    receivable. Messages of a standard queue have no group.
    """

    def __init__(self) -> None:
        self._entries: dict[int, _Entry] = {}
        self._by_handle: dict[str, _Entry] = {}
        self._used_handles: OrderedDict[str, None] = OrderedDict()
        self._next = 0
        # Positions of receivable messages per group, and the first position of each group that is not locked.
        self._ready: dict[str | None, list[int]] = {}
        self._group_heads: list[tuple[int, str | None]] = []
        self._waiting: list[tuple[float, int]] = []
        self._locked: dict[str | None, int] = {}
        self._in_flight = 0
        self._delayed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def messages(self) -> list[Message]:
        """Return all messages in the order in which they were added."""
        return [entry.message for entry in self._entries.values()]

    def add(self, message: Message, group: str | None, due: float | None) -> int:
        """Append a message that is receivable from `due` on (None: now). Returns its position."""
        entry = _Entry(self._next, group, message, due=due)
        self._entries[entry.position] = entry
        self._next += 1
        if due is None:
            self._make_ready(entry)
        else:
            self._delayed += 1
            heapq.heappush(self._waiting, (due, entry.position))
        return entry.position

    def counts(self, now: float) -> tuple[int, int, int]:
        """Return the numbers of visible, in-flight and delayed messages."""
        self._release_due(now)
        return len(self._entries) - self._in_flight - self._delayed, self._in_flight, self._delayed

    def visible(self, now: float) -> list[Message]:
        """Return the messages that are neither in flight nor delayed."""
        self._release_due(now)
        return [entry.message for entry in self._entries.values() if entry.due is None]

    def receive(self, now: float, count: int, deliver: Callable[[Message], float | None]) -> list[Message]:
        """Receive up to `count` messages.

        `deliver` prepares a message and returns the end of its visibility timeout, or None to remove the message
        from the queue instead. A removed message does not count.
        """
        self._release_due(now)
        received: list[_Entry] = []
        while len(received) < count and (entry := self._pop_head()) is not None:
            due = deliver(entry.message)
            if due is None:
                self._remove(entry)
                continue
            handle = str(entry.message.receipt_handle)
            entry.handles.append(handle)
            self._by_handle[handle] = entry
            entry.due, entry.in_flight = due, True
            self._in_flight += 1
            heapq.heappush(self._waiting, (due, entry.position))
            received.append(entry)
        for entry in received:
            if entry.group is not None:
                self._locked[entry.group] = self._locked.get(entry.group, 0) + 1
        return [entry.message for entry in received]

    def has_handle(self, handle: str) -> bool:
        """Return whether a message in the queue was received with this receipt handle."""
        return handle in self._by_handle

    def delete(self, handle: str) -> bool:
        """Remove the message received with `handle`. Returns False for an unknown receipt handle."""
        entry = self._by_handle.get(handle)
        if entry is None:
            return handle in self._used_handles
        self._end_flight(entry)
        self._remove(entry)
        return True

    def postpone(self, handle: str, now: float, due: float) -> Message | None:
        """Change the end of a message's visibility timeout to `due`. Returns None if it is not in flight."""
        self._release_due(now)
        entry = self._by_handle.get(handle)
        if entry is None or not entry.in_flight:
            return None
        entry.due = due
        if due <= now:
            self._end_flight(entry)
            self._make_ready(entry)
        else:
            heapq.heappush(self._waiting, (due, entry.position))
        return entry.message

    def next_due(self) -> float | None:
        """Return the time when the next delayed or in-flight message becomes receivable, or None."""
        return self._waiting[0][0] if self._waiting else None

    def _release_due(self, now: float) -> None:
        while self._waiting and self._waiting[0][0] <= now:
            due, position = heapq.heappop(self._waiting)
            entry = self._entries.get(position)
            # Changing a due time leaves an outdated heap entry.
            if entry is not None and entry.due == due:
                if entry.in_flight:
                    self._end_flight(entry)
                else:
                    self._delayed -= 1
                self._make_ready(entry)

    def _make_ready(self, entry: _Entry) -> None:
        entry.due = None
        ready = self._ready.setdefault(entry.group, [])
        heapq.heappush(ready, entry.position)
        if ready[0] == entry.position and entry.group not in self._locked:
            heapq.heappush(self._group_heads, (entry.position, entry.group))

    def _pop_head(self) -> _Entry | None:
        """Remove and return the first receivable message whose group is not locked."""
        while self._group_heads:
            position, group = heapq.heappop(self._group_heads)
            ready = self._ready.get(group)
            # Outdated heap entry: the group was locked, or its first message changed.
            if group in self._locked or not ready or ready[0] != position:
                continue
            heapq.heappop(ready)
            self._push_head(group)
            entry = self._entries.get(position)
            if entry is not None and entry.due is None:
                return entry
        return None

    def _push_head(self, group: str | None) -> None:
        if ready := self._ready.get(group):
            heapq.heappush(self._group_heads, (ready[0], group))
        else:
            self._ready.pop(group, None)

    def _end_flight(self, entry: _Entry) -> None:
        """Mark the message as no longer in flight, and unlock its group if it was the group's last."""
        if not entry.in_flight:
            return
        entry.in_flight = False
        self._in_flight -= 1
        if entry.group is None:
            return
        self._locked[entry.group] -= 1
        if self._locked[entry.group] == 0:
            del self._locked[entry.group]
            self._push_head(entry.group)

    def _remove(self, entry: _Entry) -> None:
        del self._entries[entry.position]
        for handle in entry.handles:
            del self._by_handle[handle]
            self._used_handles[handle] = None
        while len(self._used_handles) > _REMEMBERED_HANDLES:
            self._used_handles.popitem(last=False)
