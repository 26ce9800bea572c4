"""Writes to DynamoDB that are made only where the world is as they assume."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stream_app.errors import is_conflict


def met(write: Callable[..., Any], **request: Any) -> bool:
    """Make a conditional write (`put_item`, `update_item`, `delete_item`); False where its condition is not met.

    Raises whatever else boto3 raises.
    """
    try:
        write(**request)
    except Exception as error:
        if not is_conflict(error):
            raise
        return False
    return True
