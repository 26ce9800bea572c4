"""Patches are applied once, and fail if moto has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from moto.kinesis.models import Stream
from moto.kinesis.responses import KinesisResponse
from moto.sqs.models import Queue

from stream_app.local import moto_patches
from stream_app.local.moto_patches.patch import add, replace

if TYPE_CHECKING:
    from stream_app.aws.clients import ClientFactory


def test_applying_the_patches_is_idempotent(aws: ClientFactory) -> None:
    owners = (Stream, KinesisResponse, Queue)
    before = [dict(vars(owner)) for owner in owners]
    moto_patches.apply()
    assert [dict(vars(owner)) for owner in owners] == before


def test_replacing_a_missing_attribute_raises() -> None:
    class Renamed:
        pass

    with pytest.raises(AttributeError, match="put_record"):
        replace(Renamed, "put_record", print)


def test_adding_an_existing_attribute_does_nothing() -> None:
    class Newer:
        kept = 1

    add(Newer, "kept", 2)
    add(Newer, "lacking", 3)
    assert (Newer.kept, vars(Newer)["lacking"]) == (1, 3)
