"""Helpers that compare individual corrections with corrections in batches."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from stream_app.recovery.correct.history_entry import Correction, Request, item_key
from stream_app.recovery.correct.request import RequestResult, correct, correct_all
from stream_app.sinks.parquet import rows_digest
from tests.contracts.correcting import APPLICATION, BUCKET, TABLE, CorrectionCase

Json = dict[str, Any]


class Counted:
    """A boto3 client whose calls are counted; `before` is called with each call's name before it is made."""

    def __init__(self, client: Any, before: Callable[[str], None] = lambda _name: None) -> None:
        self._client, self._before = client, before
        self.calls: Counter[str] = Counter()

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found) or name in ("get_paginator", "exceptions", "meta"):
            return found

        def call(**request: Any) -> Any:
            self._before(name)
            self.calls[name] += 1
            return found(**request)

        return call


def stored(dependencies: CorrectionCase) -> dict[str, tuple[bytes, dict[str, str]]]:
    """Return every event file with its metadata."""
    pages = dependencies.s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix="events/")
    found = {}
    for item in (item for page in pages for item in page.get("Contents", ())):
        answer = dependencies.s3.get_object(Bucket=BUCKET, Key=item["Key"])
        found[item["Key"]] = (answer["Body"].read(), answer["Metadata"])
    return found


def put_back(dependencies: CorrectionCase, files: dict[str, tuple[bytes, dict[str, str]]]) -> None:
    """Restore the files and delete the correction history."""
    for key, (body, metadata) in files.items():
        dependencies.s3.put_object(Bucket=BUCKET, Key=key, Body=body, Metadata=metadata)
    for entry in list(dependencies.history.entries(APPLICATION)):
        dependencies.dynamodb.delete_item(
            TableName=TABLE, Key=item_key(entry.request.consumer, entry.request.position)
        )


def state(dependencies: CorrectionCase, tables: Callable[[CorrectionCase], Any]) -> Json:
    """Return the rows by file and the history by position, without object versions."""
    entries = {
        str(entry.request.position): (_told(entry.done), entry.refusal and entry.refusal.reason)
        for entry in dependencies.history.entries(APPLICATION)
    }
    return {
        "rows": {key: rows_digest(table) for key, table in tables(dependencies).items()},
        "history": entries,
    }


def _told(done: Correction | None) -> Json | None:
    if done is None:
        return None
    return {**msgspec.to_builtins(done), "version": "", "version_before": ""}


def one_by_one(dependencies: CorrectionCase, requests: Sequence[Request]) -> list[RequestResult]:
    """Correct individually, in the order of positions."""
    ordered = sorted(requests, key=lambda request: request.position.order)
    found = {
        r.position: correct(r, dependencies.history, dependencies.corrector(), lambda _refusal: None)
        for r in ordered
    }
    return [found[request.position] for request in requests]


def together(
    dependencies: CorrectionCase, requests: Sequence[Request], size: int, work: Any = None
) -> list[RequestResult | Exception]:
    """Correct in batches of the given size."""
    found: dict[Any, RequestResult | Exception] = {}
    work = work or dependencies.corrector()
    for start in range(0, len(requests), size):
        part = requests[start : start + size]
        answers = correct_all(part, dependencies.history, work.correct_all, lambda _refusal: None)
        found |= {request.position: answer for request, answer in zip(part, answers, strict=True)}
    return [found[request.position] for request in requests]


def shuffled(requests: Sequence[Request], seed: int) -> list[Request]:
    """Return the requests in a random order."""
    return random.Random(seed).sample(list(requests), len(requests))
