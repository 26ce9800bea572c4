"""The ledger: of any who want an attempt one has it, and what was marked stays."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from stream_app.recovery.redrive.ledger.claims import Busy, Claimed, Ledger, Unavailable
from stream_app.recovery.redrive.ledger.items import Attempt, State, from_item, to_item
from stream_app.recovery.redrive.message import Lineage
from tests.contracts import redriving as on
from tests.contracts.redriving import Clock

ONE = Attempt(
    root="failures/air/x.json",
    attempt=1,
    failure="failures/air/x.json",
    plan="plan-1",
    target="bus air",
    token="t",
    state=State.CLAIMED,
    by="ann",
    event="reading",
    device="A",
    id="A/1",
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def ledger(aws: Callable[[str], Any], clock: Clock) -> Ledger:
    on.make_tables(aws)
    return Ledger(aws("dynamodb"), on.HISTORY, "one", clock.now, on.LEASE_MS)


@pytest.fixture
def other(ledger: Ledger) -> Ledger:
    return replace(ledger, owner="two")


def test_an_attempt_is_what_its_item_says() -> None:
    whole = msgspec.structs.replace(
        ONE, receipt={"shard": "s", "sequence": "1"}, until=5, settled_at=9, why="because"
    )
    assert from_item(to_item(whole)) == whole
    assert from_item(to_item(ONE)) == ONE


def test_who_claims_first_has_it_until_the_end(ledger: Ledger, other: Ledger, clock: Clock) -> None:
    assert ledger.claim(ONE) == Claimed(doubt=False)
    end = clock.ms + on.LEASE_MS
    assert other.claim(ONE) == Busy(end)
    clock.ms = end - 1
    assert isinstance(other.claim(ONE), Busy)
    assert ledger.claim(ONE) == Claimed(doubt=False)  # again, by the owner: it lasts longer
    clock.ms = end + 1
    assert isinstance(other.claim(ONE), Busy)
    clock.ms += on.LEASE_MS
    assert other.claim(ONE) == Claimed(doubt=True)
    assert not ledger.complete(ONE, State.SENT)
    assert isinstance(ledger.claim(ONE), Busy)
    assert other.complete(ONE, State.SENT, receipt={"status": "200"})
    found = ledger.get(ONE.lineage)
    assert found is not None
    assert (found.state, found.owner, found.receipt) == (State.SENT, "two", {"status": "200"})


@pytest.mark.parametrize("state", [State.SENT, State.REFUSED, State.HELD])
def test_what_came_to_an_end_is_never_claimed_again(
    ledger: Ledger, other: Ledger, clock: Clock, state: State
) -> None:
    ledger.claim(ONE)
    ledger.complete(ONE, state, "so it was")
    clock.ms += 10 * on.LEASE_MS
    for anybody in (ledger, other):
        claim = anybody.claim(ONE)
        assert isinstance(claim, Unavailable)
        assert (claim.by.state, claim.by.why) == (state, "so it was")


def test_another_plan_has_to_leave_it_alone_until_its_end(
    ledger: Ledger, other: Ledger, clock: Clock
) -> None:
    ledger.claim(ONE)
    theirs = msgspec.structs.replace(ONE, plan="plan-2", target="stream devices", by="bob")
    assert isinstance(other.claim(theirs), Unavailable)
    clock.ms += on.LEASE_MS
    assert other.claim(theirs) == Claimed(doubt=True)
    found = ledger.get(ONE.lineage)
    assert found is not None
    assert (found.plan, found.target, found.by) == ("plan-2", "stream devices", "bob")
    assert isinstance(ledger.claim(ONE), Unavailable)


def test_who_is_known_to_be_dead_is_not_waited_for(ledger: Ledger, other: Ledger) -> None:
    ledger.claim(ONE)
    knowing = replace(other, is_dead=lambda owner: owner == "one")
    assert knowing.claim(ONE) == Claimed(doubt=True)
    assert isinstance(ledger.claim(ONE), Busy)


def test_what_was_given_back_is_as_if_it_had_never_been(ledger: Ledger, other: Ledger) -> None:
    ledger.claim(ONE)
    ledger.release(ONE, doubt=False)
    assert ledger.attempts(ONE.root) == []
    assert other.claim(ONE) == Claimed(doubt=False)
    ledger.release(ONE, doubt=False)  # it is not ours any more
    assert [attempt.owner for attempt in ledger.attempts(ONE.root)] == ["two"]


def test_what_was_given_back_in_doubt_is_known_to_be(ledger: Ledger, other: Ledger) -> None:
    ledger.claim(ONE)
    ledger.release(ONE, doubt=True)
    assert other.claim(ONE) == Claimed(doubt=True)


def test_attempts_come_in_order_and_by_their_record(ledger: Ledger) -> None:
    for root in ("a", "ab"):
        for attempt in (2, 10, 1):
            ledger.claim(msgspec.structs.replace(ONE, root=root, attempt=attempt))
    assert [one.attempt for one in ledger.attempts("a")] == [1, 2, 10]
    wanted = [Lineage("a", 1), Lineage("ab", 10), Lineage("a", 3), Lineage("a", 1)]
    assert ledger.known(wanted).keys() == {Lineage("a", 1), Lineage("ab", 10)}


def test_many_are_read_at_once(ledger: Ledger) -> None:
    wanted = [Lineage(f"r{number}", 1) for number in range(230)]
    for root, attempt in wanted[::2]:
        ledger.claim(msgspec.structs.replace(ONE, root=root, attempt=attempt))
    assert ledger.known(wanted).keys() == set(wanted[::2])


def test_the_histories_of_many_are_those_of_each(ledger: Ledger) -> None:
    for root, attempt in (("a", 1), ("a", 2), ("c", 3), ("d", 1)):
        ledger.claim(msgspec.structs.replace(ONE, root=root, attempt=attempt))
    asked = [Lineage("a", 0), Lineage("b", 0), Lineage("c", 2), Lineage("d", 1), Lineage("a", 1)]
    found = ledger.histories(asked)
    assert found == [ledger.attempts(one.root) for one in asked]
    assert [len(one) for one in found] == [2, 0, 1, 1, 2]


def test_what_became_of_it_is_marked_once(ledger: Ledger) -> None:
    ledger.claim(ONE)
    assert not ledger.follow(ONE, State.PROCESSED)  # not sent yet
    ledger.complete(ONE, State.SENT)
    assert ledger.follow(ONE, State.PROCESSED, "stored")
    assert not ledger.follow(ONE, State.FAILED)
    assert [one.state for one in ledger.attempts(ONE.root)] == [State.PROCESSED]


def test_a_place_in_the_stream_leads_back(ledger: Ledger) -> None:
    receipt = {"shard": "shardId-1", "sequence": "42"}
    ledger.remember_place("devices", receipt, ONE.lineage)
    asked = [("devices", "shardId-1", "42"), ("devices", "shardId-1", "43"), ("other", "shardId-1", "42")]
    assert ledger.places(asked) == {asked[0]: ONE.lineage}
    assert ledger.attempts(ONE.root) == []


def test_of_many_at_once_one_has_it(ledger: Ledger) -> None:
    many = [replace(ledger, owner=f"owner {number}") for number in range(16)]
    with ThreadPoolExecutor(16) as threads:
        claims = list(threads.map(lambda one: one.claim(ONE), many))
    assert sum(isinstance(claim, Claimed) for claim in claims) == 1


class Deaf:
    """A client that does not hear the answer to a write, and asks again, as botocore does after a lost connection."""

    def __init__(self, dynamodb: Any) -> None:
        self._dynamodb = dynamodb

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._dynamodb, name)
        if name not in ("put_item", "update_item", "delete_item"):
            return method

        def twice(**request: Any) -> Any:
            method(**request)
            return method(**request)

        return twice


def test_an_answer_that_was_lost_does_not_make_us_strangers_to_ourselves(
    ledger: Ledger, other: Ledger
) -> None:
    lossy_client: Any = Deaf(ledger.dynamodb)
    deaf = replace(ledger, dynamodb=lossy_client)
    assert deaf.claim(ONE) == Claimed(doubt=False)
    assert deaf.claim(ONE) == Claimed(doubt=False)
    assert isinstance(other.claim(ONE), Busy)
    assert deaf.complete(ONE, State.SENT)
    assert deaf.follow(ONE, State.PROCESSED)
    assert [one.state for one in ledger.attempts(ONE.root)] == [State.PROCESSED]
