"""How corrections take hold: once, and never silently on a moto that has changed."""

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


def test_applying_again_changes_nothing(aws: ClientFactory) -> None:
    owners = (Stream, KinesisResponse, Queue)
    before = [dict(vars(owner)) for owner in owners]
    moto_patches.apply()
    assert [dict(vars(owner)) for owner in owners] == before


def test_what_is_not_there_cannot_be_replaced() -> None:
    class Renamed:
        pass

    with pytest.raises(AttributeError, match="put_record"):
        replace(Renamed, "put_record", print)


def test_what_moto_has_gained_since_is_left_alone() -> None:
    class Newer:
        kept = 1

    add(Newer, "kept", 2)
    add(Newer, "lacking", 3)
    assert (Newer.kept, vars(Newer)["lacking"]) == (1, 3)
