"""Deploys the CloudFormation templates of infra/ to the embedded AWS with boto3.

CloudFormation inside moto silently ignores unsupported types and properties. Here, a type or property is either
deployed, or listed as unsupported with a reason; any other is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from stream_app.aws.clients import ClientFactory
from stream_app.errors import ConfigError, Problem
from stream_app.local.deployers import events, messaging, storage
from stream_app.local.deployers.deployer import Deployer, Deployment, UntypedClient
from stream_app.local.deployers.identity import identity
from stream_app.local.deployers.intrinsics import (
    Attributes,
    Lookup,
    Properties,
    PseudoParameters,
    evaluate,
    template_error,
)
from stream_app.local.deployers.template import Resource, Template, read
from stream_app.resources import shipped

Outputs = dict[str, str]

DEPLOYERS: Mapping[str, Deployer] = {**storage.DEPLOYERS, **messaging.DEPLOYERS, **events.DEPLOYERS}

_PERMISSIONS = "the embedded AWS does not check permissions"
_RUNNERS = "the runners of stream_app.local read it from the template and do its work"

# Resource types that are not created in the embedded AWS, with the reason.
UNSUPPORTED_TYPES: Mapping[str, str] = {
    "AWS::CloudWatch::Alarm": "the embedded AWS has no metrics; use the console output and `audit` instead",
    "AWS::Events::ApiDestination": _RUNNERS,
    "AWS::Events::Connection": "the pipe runner calls the endpoint without credentials",
    "AWS::IAM::ManagedPolicy": _PERMISSIONS,
    "AWS::IAM::Role": _PERMISSIONS,
    "AWS::Lambda::EventSourceMapping": _RUNNERS,
    "AWS::Lambda::Function": _RUNNERS,
    "AWS::Logs::LogGroup": "the runners log to stderr",
    "AWS::Pipes::Pipe": _RUNNERS,
    "AWS::S3::BucketPolicy": "moto ignores conditions, so the policy that requires TLS would deny every request",
}

# Properties of deployed types that have no local counterpart, with the reason.
UNSUPPORTED_PROPERTIES: Mapping[tuple[str, str], str] = {
    (
        "AWS::KMS::Key",
        "PendingWindowInDays",
    ): "applies to the deletion of a key; local keys are never deleted",
}

# The functions run from the source tree, so no zip file exists. A local run must not wait for corrections.
LOCAL_PARAMETERS: Mapping[str, str] = {
    "CodeBucket": "not-local",
    "CodeKey": "not-local",
    "CorrectionsPerSecond": "1000",
}


class StackResource(NamedTuple):
    """A resource of a template with its properties resolved and its attributes (`Ref` and GetAtt values)."""

    id: str
    type: str
    properties: Properties
    attributes: Attributes


def templates() -> tuple[Path, ...]:
    """Return the templates shipped with the application. Nested stacks are referenced by their parent."""
    return (shipped("infra") / "data-plane.yaml",)


def deploy(
    templates: Sequence[Path],
    clients: ClientFactory,
    *,
    application: str = "stream-app",
    shards: int | None = None,
    parameters: Properties | None = None,
) -> Outputs:
    """Deploy the templates and return their outputs. Idempotent: existing resources are kept or updated.

    `shards` creates a provisioned stream with that many shards in place of the template's on-demand stream.
    Raises ConfigError listing every unknown type and property.
    """
    pseudo = pseudo_parameters(clients, application)
    models = [_read(path, pseudo, application, parameters) for path in templates]
    problems = [problem for model in models for problem in unsupported(model.resources.values())]
    if problems:
        raise ConfigError(problems)
    outputs: Outputs = {}
    for model in models:
        known = _deploy(model, pseudo, Deployment(clients, shards))
        outputs |= {name: str(value) for name, value in model.outputs(_lookup(known)).items()}
    return outputs


def _deploy(model: Template, pseudo: PseudoParameters, deployment: Deployment) -> dict[str, Attributes]:
    known: dict[str, Attributes] = {}
    for resource in model.resources.values():
        item = _resolve(resource, pseudo, known)
        entry = DEPLOYERS.get(resource.type)
        known[resource.id] = (
            entry.deploy(deployment, item.properties, item.attributes) if entry else item.attributes
        )
    return known


def resolve_templates(
    templates: Sequence[Path],
    clients: ClientFactory,
    *,
    application: str = "stream-app",
    parameters: Properties | None = None,
) -> list[StackResource]:
    """Resolve every resource of the templates without creating any. The runners read their configuration from it.

    Resources that AWS names randomly, such as a KMS key, are named after their logical ID.
    """
    pseudo = pseudo_parameters(clients, application)
    resolved: list[StackResource] = []
    for path in templates:
        known: dict[str, Attributes] = {}
        for resource in _read(path, pseudo, application, parameters).resources.values():
            resolved.append(_resolve(resource, pseudo, known))
            known[resource.id] = resolved[-1].attributes
    return resolved


def unsupported(resources: Iterable[Resource]) -> list[Problem]:
    """Return a problem for each type and property that is neither deployed nor listed as unsupported."""
    problems = []
    for resource in resources:
        if resource.type in UNSUPPORTED_TYPES:
            continue
        if resource.type not in DEPLOYERS:
            hint = "add it to DEPLOYERS or UNSUPPORTED_TYPES"
            problems.append(Problem(f"{resource.id} has the unknown type {resource.type}", hint))
            continue
        for name in sorted(set(resource.properties) - DEPLOYERS[resource.type].properties):
            if (resource.type, name) not in UNSUPPORTED_PROPERTIES:
                what = f"{resource.id} ({resource.type}) has the unknown property {name}"
                problems.append(Problem(what, "deploy it, or add it to UNSUPPORTED_PROPERTIES"))
    return problems


def pseudo_parameters(clients: ClientFactory, application: str) -> PseudoParameters:
    """Return account, region and queue endpoint of the clients. The stack name is the application name."""
    sqs = clients("sqs")
    sts: UntypedClient = clients("sts")
    account = sts.get_caller_identity()["Account"]
    return PseudoParameters(
        account, sqs.meta.region_name, sqs.meta.endpoint_url.rstrip("/"), stack=application
    )


def _read(path: Path, pseudo: PseudoParameters, application: str, parameters: Properties | None) -> Template:
    return read(path, pseudo, {**LOCAL_PARAMETERS, "Application": application, **(parameters or {})})


def _resolve(resource: Resource, pseudo: PseudoParameters, known: Mapping[str, Attributes]) -> StackResource:
    properties = evaluate(resource.properties, resource.stack, _lookup(known))
    attributes = identity(pseudo, resource.id, resource.type, properties)
    return StackResource(resource.id, resource.type, properties, attributes)


def _lookup(known: Mapping[str, Attributes]) -> Lookup:
    def lookup(name: str, attribute: str) -> str:
        try:
            return known[name][attribute]
        except KeyError:
            raise template_error(
                f"unknown attribute {attribute} of {name}", "add it to stream_app.local.deployers.identity"
            ) from None

    return lookup
