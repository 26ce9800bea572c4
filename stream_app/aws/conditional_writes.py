"""Conditional writes to DynamoDB."""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec

from stream_app.errors import is_conflict

P = ParamSpec("P")


def met(write: Callable[P, object], *arguments: P.args, **request: P.kwargs) -> bool:
    """Make a conditional write (`put_item`, `update_item`, `delete_item`); return whether its condition was met.

    Raises any other error of boto3.
    """
    try:
        write(*arguments, **request)
    except Exception as error:
        if not is_conflict(error):
            raise
        return False
    return True
