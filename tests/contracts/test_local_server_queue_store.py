"""`QueueStore` against a reference model: a list."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from moto.sqs.models import Message

from stream_app.local.moto_patches.sqs.queue_store import QueueStore


@dataclass
class Plain:
    message: Message
    group: str | None
    due: int | None = None
    flying: bool = False


class Queue(RuleBasedStateMachine):
    """Random operations on the store and the model: send, receive, time out, change visibility, delete."""

    def __init__(self) -> None:
        super().__init__()
        self.store = QueueStore()
        self.plain: list[Plain] = []
        self.handles: dict[str, Plain] = {}
        self.now = 0

    def _release_due(self) -> None:
        for entry in self.plain:
            if entry.due is not None and entry.due <= self.now:
                entry.due, entry.flying = None, False

    @rule(group=st.sampled_from([None, None, "a", "b"]), delay=st.sampled_from([0, 0, 0, 5]))
    def send(self, group: str | None, delay: int) -> None:
        message = Message(f"m{len(self.plain)}", "")
        due = self.now + delay if delay else None
        self.store.add(message, group, due)
        self.plain.append(Plain(message, group, due))

    @rule(count=st.integers(1, 4), timeout=st.integers(0, 6), poison=st.booleans())
    def receive(self, count: int, timeout: int, poison: bool) -> None:
        """With `poison`, the first message is removed from the queue instead of being received."""
        self._release_due()
        locked = {entry.group for entry in self.plain if entry.flying and entry.group}
        free = [e for e in self.plain if e.due is None and e.group not in locked]
        dropped, expected = (free[:1], free[1 : count + 1]) if poison else ([], free[:count])
        refused = {entry.message for entry in dropped}

        def deliver(message: Message) -> float | None:
            if message in refused:
                return None
            message.receipt_handle = f"h{len(self.handles)}"
            self.handles[message.receipt_handle] = next(e for e in self.plain if e.message is message)
            return self.now + timeout

        taken = self.store.receive(self.now, count, deliver)
        assert taken == [entry.message for entry in expected]
        for entry in expected:
            entry.due, entry.flying = self.now + timeout, True
        self.plain = [entry for entry in self.plain if entry not in dropped]

    @rule(data=st.data())
    def delete(self, data: st.DataObject) -> None:
        if self.handles:
            handle = data.draw(st.sampled_from(sorted(self.handles)))
            assert self.store.delete(handle)
            gone = self.handles[handle]
            self.plain = [entry for entry in self.plain if entry is not gone]

    @rule(data=st.data(), timeout=st.integers(0, 9))
    def change_visibility(self, data: st.DataObject, timeout: int) -> None:
        if self.handles:
            self._release_due()
            handle = data.draw(st.sampled_from(sorted(self.handles)))
            entry = self.handles[handle]
            flying = any(e is entry for e in self.plain) and entry.flying
            changed = self.store.postpone(handle, self.now, self.now + timeout)
            assert changed is (entry.message if flying else None)
            if flying:
                entry.due = self.now + timeout

    @rule(by=st.integers(1, 4))
    def wait(self, by: int) -> None:
        self.now += by

    @invariant()
    def counts_agree(self) -> None:
        self._release_due()
        flying = sum(entry.flying for entry in self.plain)
        delayed = sum(entry.due is not None and not entry.flying for entry in self.plain)
        assert self.store.counts(self.now) == (len(self.plain) - flying - delayed, flying, delayed)
        assert self.store.messages() == [entry.message for entry in self.plain]
        assert self.store.visible(self.now) == [entry.message for entry in self.plain if entry.due is None]


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_an_unknown_receipt_handle_is_not_found() -> None:
    store = QueueStore()
    assert not store.delete("x")
    assert not store.has_handle("x")
