"""Reads every shard of a stream in order, a child shard after its parents."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from stream_app.errors import aws_error_code, is_transient
from stream_app.local.pipes.queue_reader import Loop
from stream_app.telemetry import log

if TYPE_CHECKING:
    from mypy_boto3_kinesis import KinesisClient
    from mypy_boto3_kinesis.type_defs import ShardTypeDef

_IDLE_SECONDS = 0.2
_LIST_SECONDS = 2.0
_PAGE = 500

# A record of GetRecords. Not boto3-stubs' own type, because tests pass plain dictionaries.
KinesisRecord = Mapping[str, Any]
# The ShardIteratorType of GetShardIterator with the parameters that belong to it.
StartingPosition = dict[str, Any]
# Processes consecutive records of a shard. Returns when all are processed, or early if the event is set.
Deliver = Callable[[str, Sequence[KinesisRecord], threading.Event], None]


class StreamReader:
    """Passes the records of each shard to `deliver`, with one thread per shard. Positions are kept in memory only.

    `start` applies to the shards that exist at the beginning; shards that appear later are read from TRIM_HORIZON.
    """

    def __init__(self, kinesis: KinesisClient, arn: str, start: StartingPosition, deliver: Deliver) -> None:
        self._kinesis, self._arn, self._start, self._deliver = kinesis, arn, start, deliver
        self._threads: dict[str, threading.Thread] = {}
        self._ended: set[str] = set()
        self._initial: dict[str, str] | None = None
        self._errors: list[BaseException] = []
        self.loops: list[Loop] = [self._watch]

    def _watch(self, stop: threading.Event) -> None:
        # The readers have their own event, so that the failure of one stops the others.
        halt = threading.Event()
        try:
            while not stop.is_set() and not self._errors:
                self._start_readers(halt)
                stop.wait(_LIST_SECONDS if self._threads else _IDLE_SECONDS)
        finally:
            halt.set()
            for thread in self._threads.values():
                thread.join()
        if self._errors:
            raise self._errors[0]

    def _start_readers(self, halt: threading.Event) -> None:
        shards = self._list()
        if shards is None:
            return
        if self._initial is None:
            # All iterators are created before any shard is read, so that LATEST is the same moment for every shard.
            self._initial = {
                shard["ShardId"]: self._iterator(shard["ShardId"], self._start) for shard in shards
            }
        known = {shard["ShardId"] for shard in shards}
        for shard in shards:
            name = shard["ShardId"]
            parents = {shard.get("ParentShardId"), shard.get("AdjacentParentShardId")} & known
            if name not in self._threads and parents <= self._ended:
                thread = threading.Thread(target=self._guard, args=(name, halt), name=name, daemon=True)
                self._threads[name] = thread
                thread.start()

    def _list(self) -> list[ShardTypeDef] | None:
        try:
            pages = self._kinesis.get_paginator("list_shards").paginate(StreamARN=self._arn)
            return [shard for page in pages for shard in page["Shards"]]
        except Exception as error:
            if not is_transient(error):
                raise
            return None

    def _guard(self, shard: str, stop: threading.Event) -> None:
        try:
            self._read(shard, stop)
        except BaseException as error:
            # Raised again by _watch.
            self._errors.append(error)

    def _read(self, shard: str, stop: threading.Event) -> None:
        iterator = (self._initial or {}).get(shard)
        last: str | None = None
        while not stop.is_set():
            try:
                iterator = iterator or self._after(shard, last)
                answer = self._kinesis.get_records(ShardIterator=iterator, Limit=_PAGE)
            except Exception as error:
                if aws_error_code(error) == "ExpiredIteratorException":
                    iterator = None
                    continue
                if not is_transient(error):
                    raise
                log.get().warning("shard is out of reach", shard=shard, error=type(error).__name__)
                stop.wait(_IDLE_SECONDS)
                continue
            records = answer["Records"]
            if records:
                self._deliver(shard, records, stop)
                last = records[-1]["SequenceNumber"]
            # Absent at the end of a closed shard, although boto3-stubs declares it as required.
            iterator = answer.get("NextShardIterator") or None
            if iterator is None:
                self._ended.add(shard)
                return
            if not records:
                stop.wait(_IDLE_SECONDS)

    def _after(self, shard: str, last: str | None) -> str:
        if last is None:
            return self._iterator(shard, {"ShardIteratorType": "TRIM_HORIZON"})
        after = {"ShardIteratorType": "AFTER_SEQUENCE_NUMBER", "StartingSequenceNumber": last}
        return self._iterator(shard, after)

    def _iterator(self, shard: str, start: StartingPosition) -> str:
        answer = self._kinesis.get_shard_iterator(StreamARN=self._arn, ShardId=shard, **start)
        return str(answer["ShardIterator"])
