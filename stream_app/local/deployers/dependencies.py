"""What an applier is given, and the small questions that all of them ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from botocore.exceptions import ClientError

from stream_app.errors import code_of
from stream_app.local.deployers.identity import Attributes

Properties = Mapping[str, Any]


class ClientFactory(Protocol):
    """Gives the boto3 client of a service by its name ("sqs")."""

    def __call__(self, name: str, /) -> Any:
        """The client; it may be asked for more than once, and used from several threads."""


class Deployment(NamedTuple):
    """The clients, and the number of shards of a provisioned stream (None: as the template says)."""

    clients: ClientFactory
    shards: int | None = None


Apply = Callable[[Deployment, Properties, Attributes], Attributes]


class Applied(NamedTuple):
    """How a type is made, and every property that this takes into account."""

    apply: Apply
    properties: frozenset[str]


def applied(apply: Apply, *properties: str) -> Applied:
    """An entry of the table of types."""
    return Applied(apply, frozenset(properties))


def text(value: Any) -> str:
    """A value as an attribute of SQS and SNS wants it: JSON for documents, lower case for booleans."""
    return value if isinstance(value, str) else json.dumps(value)


def attempt(missing: tuple[str, ...], call: Callable[..., Any], /, **arguments: Any) -> Any:
    """The answer of a call, or None when AWS refuses it with one of the codes `missing`."""
    try:
        return call(**arguments)
    except ClientError as error:
        if code_of(error) in missing:
            return None
        raise
