"""Claims on redrive attempts in DynamoDB, written with conditional writes.

The protocol for each record: *claim* (put the attempt's item on condition that it does not exist) → send, with an
idempotency key that is a function of record and attempt → *complete* (update the item with the outcome). An attempt
has one item, independent of the plan, so only one of several plans or appliers gets it.

A claim expires some time after its owner last renewed it. Another applier, of the same plan or another, may then take
it over. The attempt is *in doubt*, because its owner may have died before or after it sent the record. The record is
sent again under the same idempotency key if the receiver can recognize a second copy, otherwise it is held for a
person. No protocol can do better: a sender that dies cannot know whether its last request arrived.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from stream_app.aws.conditional_writes import met
from stream_app.recovery.redrive.ledger.items import (
    Attempt,
    State,
    from_item,
    key_of,
    partition_of,
    place_item,
    place_key,
    place_of,
    serialized,
    to_item,
)
from stream_app.recovery.redrive.message import Lineage
from stream_app.sinks.dynamodb import batch_get

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

_ABSENT = "attribute_not_exists(pk)"
# Attributes of an attempt that a plan overwrites when it takes over an expired claim.
_OF_A_PLAN = ("plan", "target", "failure", "by", "event", "device", "id")
Place = tuple[str, str, str]  # stream, shard, sequence number


class Claimed(NamedTuple):
    """The claim succeeded. With `doubt`, a previous owner may already have sent the record."""

    doubt: bool


class Busy(NamedTuple):
    """Another applier holds the claim, which expires at `until` (ms since the epoch)."""

    until: int


class Unavailable(NamedTuple):
    """The attempt cannot be claimed: it is complete, or another plan holds the claim."""

    by: Attempt


Claim = Claimed | Busy | Unavailable


@dataclass(frozen=True, slots=True)
class Ledger:
    """The attempts in the history table, written by one applier (`owner`). Its claims last `lease_ms`.

    The clocks of two appliers may differ by less than `lease_ms`. `is_dead` tells whether an owner has certainly
    died. All methods raise boto3 errors.
    """

    dynamodb: DynamoDBClient
    table: str
    owner: str
    now_ms: Callable[[], int]
    lease_ms: int = 30_000
    is_dead: Callable[[str], bool] = lambda _owner: False

    def claim(self, attempt: Attempt) -> Claim:
        """Claim the attempt; required before sending. A claim repeated by its owner extends it."""
        now = self.now_ms()
        until = now + self.lease_ms
        new = msgspec.structs.replace(
            attempt, state=State.CLAIMED, owner=self.owner, until=until, claimed_at=now
        )
        if met(self.dynamodb.put_item, TableName=self.table, Item=to_item(new), ConditionExpression=_ABSENT):
            return Claimed(doubt=False)
        found = self.get(attempt.lineage)
        if found is None:  # released in the meantime
            return Busy(now)
        if found.state is not State.CLAIMED:
            return Unavailable(found)
        if found.owner != self.owner and self.is_active(found):
            return Busy(found.until) if found.plan == attempt.plan else Unavailable(found)
        before = {"state": found.state.value, "owner": found.owner, "until": found.until}
        after = {name: getattr(attempt, name) for name in _OF_A_PLAN} | {"owner": self.owner, "until": until}
        taken_over = self._change(attempt.lineage, before, after)
        return Claimed(doubt=found.owner != self.owner) if taken_over else Busy(now)

    def is_active(self, attempt: Attempt) -> bool:
        """Return whether an applier may be sending it: the claim has not expired and its owner is not dead."""
        claimed = attempt.state is State.CLAIMED and attempt.until > self.now_ms()
        return claimed and not self.is_dead(attempt.owner)

    def complete(
        self, attempt: Attempt, state: State, why: str = "", receipt: Mapping[str, str] | None = None
    ) -> bool:
        """Record the outcome of a claimed attempt; False if another applier has taken it over."""
        changes = {
            "state": state.value,
            "settled_at": self.now_ms(),
            "why": why,
            "receipt": dict(receipt or {}),
        }
        return self._change(attempt.lineage, {"owner": self.owner, "state": State.CLAIMED.value}, changes)

    def release(self, attempt: Attempt, *, doubt: bool) -> None:
        """Release a claim: delete it or, with `doubt`, expire it, so that the next applier knows of the doubt."""
        before = {"owner": self.owner, "state": State.CLAIMED.value}
        if doubt:
            self._change(attempt.lineage, before, {"until": 0})
            return
        self._write(self.dynamodb.delete_item, before, Key=key_of(attempt.lineage))

    def follow(self, attempt: Attempt, state: State, why: str = "") -> bool:
        """Record the outcome of a sent record; False if one is recorded already."""
        before = {"state": State.SENT.value}
        return self._change(
            attempt.lineage, before, {"state": state.value, "why": why, "followed_at": self.now_ms()}
        )

    def remember_place(self, stream: str, receipt: Mapping[str, str], lineage: Lineage) -> None:
        """Store which attempt a stream position belongs to, for payloads that carry no lineage."""
        self.dynamodb.put_item(TableName=self.table, Item=place_item(stream, receipt, lineage))

    def get(self, lineage: Lineage) -> Attempt | None:
        """Return one attempt, read consistently."""
        found = self.dynamodb.get_item(TableName=self.table, Key=key_of(lineage), ConsistentRead=True)
        return from_item(found["Item"]) if "Item" in found else None

    def attempts(self, root: str) -> list[Attempt]:
        """Return all attempts at a record, in order."""
        names, values = {"#pk": "pk"}, serialized({":pk": partition_of(root)})
        pages = self.dynamodb.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression="#pk = :pk",
            ExpressionAttributeNames=names,
            ExpressionAttributeValues=values,
            ConsistentRead=True,
        )
        return [from_item(item) for page in pages for item in page["Items"]]

    def histories(self, lineages: Sequence[Lineage]) -> list[list[Attempt]]:
        """Return all attempts at each of many records, in order.

        Attempt numbers are assumed to be consecutive, from 1 or from the attempt in the record's lineage.
        """
        asked = {Lineage(one.root, number) for one in lineages for number in range(1, one.attempt + 2)}
        found: dict[str, dict[int, Attempt]] = {}
        new = self.known(asked)
        while new:
            for (root, number), attempt in new.items():
                found.setdefault(root, {})[number] = attempt
            following = {Lineage(root, number + 1) for root, number in new} - asked
            asked |= following
            new = self.known(following)
        return [[attempt for _, attempt in sorted(found.get(one.root, {}).items())] for one in lineages]

    def known(self, lineages: Iterable[Lineage]) -> dict[Lineage, Attempt]:
        """Return those of the attempts that exist."""
        keys = [key_of(lineage) for lineage in dict.fromkeys(lineages)]
        found = (from_item(item) for item in batch_get(self.dynamodb, self.table, keys))
        return {attempt.lineage: attempt for attempt in found}

    def places(self, places: Sequence[Place]) -> dict[Place, Lineage]:
        """Map stream positions to the lineages of their attempts, if known."""
        by_key = {place_key(*place)["pk"]["S"]: place for place in places}
        keys = [place_key(*place) for place in by_key.values()]
        items = batch_get(self.dynamodb, self.table, keys)
        return {by_key[item["pk"]["S"]]: place_of(item) for item in items}

    def _change(self, lineage: Lineage, before: Mapping[str, object], after: Mapping[str, object]) -> bool:
        """Update an item on condition that its attributes equal `before`.

        Also True if an earlier try of this update, whose response was lost, has succeeded.
        """
        setting = "SET " + ", ".join(f"#{name} = :new_{name}" for name in after)
        new = {f":new_{name}": value for name, value in after.items()}
        update = self.dynamodb.update_item
        if self._write(
            update, before, names=after, values=new, Key=key_of(lineage), UpdateExpression=setting
        ):
            return True
        found = self.dynamodb.get_item(TableName=self.table, Key=key_of(lineage), ConsistentRead=True)
        return all(found.get("Item", {}).get(name) == value for name, value in serialized(after).items())

    def _write(
        self,
        call: Callable[..., object],
        before: Mapping[str, object],
        names: Iterable[str] = (),
        values: Mapping[str, object] | None = None,
        **request: object,
    ) -> bool:
        condition = " AND ".join(f"#{name} = :old_{name}" for name in before)
        old = {f":old_{name}": value for name, value in before.items()}
        return met(
            call,
            TableName=self.table,
            ConditionExpression=condition,
            ExpressionAttributeNames={f"#{name}": name for name in {*before, *names}},
            ExpressionAttributeValues=serialized({**old, **(values or {})}),
            **request,
        )
