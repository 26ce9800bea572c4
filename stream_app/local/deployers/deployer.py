"""The deployer of a resource type, and helper functions shared by all deployers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, NamedTuple, ParamSpec, TypeVar

from botocore.exceptions import ClientError

from stream_app.aws.clients import ClientFactory
from stream_app.errors import aws_error_code
from stream_app.local.deployers.intrinsics import Attributes, Properties

P = ParamSpec("P")
R = TypeVar("R")
# A KMS or STS client: the application itself uses neither service, so their type stubs are not installed.
UntypedClient = Any


class Deployment(NamedTuple):
    """The clients, and the number of shards for a provisioned stream (None: as in the template)."""

    clients: ClientFactory
    shards: int | None = None


Deploy = Callable[[Deployment, Properties, Attributes], Attributes]


class Deployer(NamedTuple):
    """The function that creates or updates a resource, and the properties that it supports."""

    deploy: Deploy
    properties: frozenset[str]


def deployer(deploy: Deploy, *properties: str) -> Deployer:
    """Return an entry for the table of resource types."""
    return Deployer(deploy, frozenset(properties))


def attribute_text(value: object) -> str:
    """Convert a value to an SQS or SNS attribute: strings unchanged, documents and booleans as JSON."""
    return value if isinstance(value, str) else json.dumps(value)


def get_or_none(
    missing: tuple[str, ...], call: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs
) -> R | None:
    """Call an AWS operation. Returns None if it fails with one of the error codes `missing`."""
    try:
        return call(*args, **kwargs)
    except ClientError as error:
        if aws_error_code(error) in missing:
            return None
        raise
