"""Who sends what again: claims and marks in DynamoDB, written on conditions.

The protocol, for each record: *claim* (the attempt's item is put on the condition that there is none) → send, with
an idempotency key that is a function of record and attempt → *settle* (mark what became of it). An attempt has one
item whatever plan it is of, so that of two plans, or two appliers of one plan, one gets it.

A claim ends some time after its owner was last heard of; then another applier may take it over, of the same plan or
another. It is *in doubt*: the owner may have died before it sent, or after. With the same idempotency key it is sent
again where the receiver can tell a second copy, else it is held for a person. No protocol can do better: a sender
that dies cannot know whether its last words were heard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

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

_ABSENT = "attribute_not_exists(pk)"
# What an attempt takes over from the plan by which it goes on.
_OF_A_PLAN = ("plan", "target", "failure", "by", "event", "device", "id")
Place = tuple[str, str, str]  # stream, shard, sequence number


class Mine(NamedTuple):
    """The claim is ours. In `doubt` it was another's before, who may have sent the record."""

    doubt: bool


class Busy(NamedTuple):
    """Another applier works on it, until (ms since the epoch) at the latest."""

    until: int


class Taken(NamedTuple):
    """Nothing to do: the attempt has come to an end, or another plan is at it."""

    by: Attempt


Claim = Mine | Busy | Taken


@dataclass(frozen=True, slots=True)
class Ledger:
    """The attempts in the history table, as one applier (`owner`) writes them; its claims last `lease_ms`.

    Clocks of two appliers may differ by less than that. `is_dead` tells of an owner that it has died for sure. Every
    method raises what boto3 raises.
    """

    dynamodb: Any
    table: str
    owner: str
    now_ms: Callable[[], int]
    lease_ms: int = 30_000
    is_dead: Callable[[str], bool] = lambda _owner: False

    def claim(self, attempt: Attempt) -> Claim:
        """Make the attempt ours, before anything is sent. Repeated by the owner it makes the claim last longer."""
        now = self.now_ms()
        claimed = {
            "state": State.CLAIMED,
            "owner": self.owner,
            "until": now + self.lease_ms,
            "claimed_at": now,
        }
        if self._put_new(to_item(msgspec.structs.replace(attempt, **claimed))):
            return Mine(doubt=False)
        found = self.get(attempt.lineage)
        if found is None:  # given back in between
            return Busy(now)
        if found.state is not State.CLAIMED:
            return Taken(found)
        if found.owner != self.owner and self.lives(found):
            return Busy(found.until) if found.plan == attempt.plan else Taken(found)
        before = {"state": found.state.value, "owner": found.owner, "until": found.until}
        after = {name: getattr(attempt, name) for name in _OF_A_PLAN}
        taken = self._change(
            attempt.lineage, before, after | {"owner": self.owner, "until": now + self.lease_ms}
        )
        return Mine(doubt=found.owner != self.owner) if taken else Busy(now)

    def lives(self, attempt: Attempt) -> bool:
        """Whether somebody may be at it: it is claimed, and its owner neither silent for too long nor dead."""
        claimed = attempt.state is State.CLAIMED and attempt.until > self.now_ms()
        return claimed and not self.is_dead(attempt.owner)

    def settle(
        self, attempt: Attempt, state: State, why: str = "", receipt: Mapping[str, str] | None = None
    ) -> bool:
        """Mark what became of our claim; False when another took it over meanwhile."""
        changes = {
            "state": state.value,
            "settled_at": self.now_ms(),
            "why": why,
            "receipt": dict(receipt or {}),
        }
        return self._change(attempt.lineage, {"owner": self.owner, "state": State.CLAIMED.value}, changes)

    def release(self, attempt: Attempt, *, doubt: bool) -> None:
        """Give our claim back: as if it had never been, or, where it may have been sent, to whoever comes next."""
        before = {"owner": self.owner, "state": State.CLAIMED.value}
        if doubt:
            self._change(attempt.lineage, before, {"until": 0})
            return
        self._write(self.dynamodb.delete_item, before, Key=key_of(attempt.lineage))

    def follow(self, attempt: Attempt, state: State, why: str = "") -> bool:
        """Mark what became of a record after it was sent; False when that is known already."""
        before = {"state": State.SENT.value}
        return self._change(
            attempt.lineage, before, {"state": state.value, "why": why, "followed_at": self.now_ms()}
        )

    def remember_place(self, stream: str, receipt: Mapping[str, str], lineage: Lineage) -> None:
        """Note which attempt a position of a stream is, for bytes that carry no lineage."""
        self.dynamodb.put_item(TableName=self.table, Item=place_item(stream, receipt, lineage))

    def get(self, lineage: Lineage) -> Attempt | None:
        """One attempt, as it is now."""
        found = self.dynamodb.get_item(TableName=self.table, Key=key_of(lineage), ConsistentRead=True)
        return from_item(found["Item"]) if "Item" in found else None

    def attempts(self, root: str) -> list[Attempt]:
        """Every attempt at a record, in order."""
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
        """Every attempt at each of many records, in order; numbers follow each other, or what a record carries."""
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
        """Those of many attempts that there are."""
        keys = [key_of(lineage) for lineage in dict.fromkeys(lineages)]
        found = (from_item(item) for item in batch_get(self.dynamodb, self.table, keys))
        return {attempt.lineage: attempt for attempt in found}

    def places(self, places: Sequence[Place]) -> dict[Place, Lineage]:
        """Which attempts positions of a stream are, those that are known."""
        by_key = {place_key(*place)["pk"]["S"]: place for place in places}
        keys = [place_key(*place) for place in by_key.values()]
        items = batch_get(self.dynamodb, self.table, keys)
        return {by_key[item["pk"]["S"]]: place_of(item) for item in items}

    def _put_new(self, item: dict[str, Any]) -> bool:
        return met(self.dynamodb.put_item, TableName=self.table, Item=item, ConditionExpression=_ABSENT)

    def _change(self, lineage: Lineage, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
        """Update an item that is as `before` says; also true when our own try whose answer was lost has done so."""
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
        call: Callable[..., Any],
        before: Mapping[str, Any],
        names: Iterable[str] = (),
        values: Mapping[str, Any] | None = None,
        **request: Any,
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
