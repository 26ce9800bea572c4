"""The template of infra/, applied to the embedded AWS with boto3: each resource is made or left out with a reason.

CloudFormation inside moto drops types and properties without a word; here an unknown one is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stream_app.errors import ConfigError, Problem
from stream_app.local.deployers import events, messaging, storage
from stream_app.local.deployers.dependencies import Applied, ClientFactory, Deployment
from stream_app.local.deployers.identity import Attributes, identity
from stream_app.local.deployers.intrinsics import StackParameters, evaluate, wrong
from stream_app.local.deployers.template import Resource, Template, read
from stream_app.resources import shipped

Outputs = dict[str, str]

APPLIED: Mapping[str, Applied] = {**storage.APPLIED, **messaging.APPLIED, **events.APPLIED}

_PERMISSIONS = "the embedded AWS checks no permissions"
_WORKERS = "the runners of stream_app.local read it from the template and do its work"

# Types that are not made in the embedded AWS, and why.
NOT_LOCAL: Mapping[str, str] = {
    "AWS::CloudWatch::Alarm": "the embedded AWS measures nothing; the console and `audit` watch instead",
    "AWS::Events::ApiDestination": _WORKERS,
    "AWS::Events::Connection": "the pipe runner posts to the endpoint without the secret of the real one",
    "AWS::IAM::ManagedPolicy": _PERMISSIONS,
    "AWS::IAM::Role": _PERMISSIONS,
    "AWS::Lambda::EventSourceMapping": _WORKERS,
    "AWS::Lambda::Function": _WORKERS,
    "AWS::Logs::LogGroup": "the runners log to stderr",
    "AWS::Pipes::Pipe": _WORKERS,
    "AWS::S3::BucketPolicy": "moto enforces a statement without its condition: TLS only would refuse every request",
}

# Properties of applied types that have no local counterpart, and why.
NOT_LOCAL_PROPERTIES: Mapping[tuple[str, str], str] = {
    (
        "AWS::KMS::Key",
        "PendingWindowInDays",
    ): "says how long a deleted key can be brought back; none is deleted",
}

# The functions run from the source tree, so there is no zip to name; and a run does not wait for corrections.
LOCAL_PARAMETERS: Mapping[str, str] = {
    "CodeBucket": "not-local",
    "CodeKey": "not-local",
    "CorrectionsPerSecond": "1000",
}


class Placed(NamedTuple):
    """A resource of the template with its properties resolved, and what Ref and GetAtt give for it."""

    id: str
    type: str
    properties: Mapping[str, Any]
    attributes: Attributes


def templates() -> tuple[Path, ...]:
    """The templates that travel with the application: the parent, which names the stacks nested in it."""
    return (shipped("infra") / "data-plane.yaml",)


def deploy(
    templates: Sequence[Path],
    clients: ClientFactory,
    *,
    application: str = "stream-app",
    shards: int | None = None,
    parameters: Mapping[str, Any] | None = None,
) -> Outputs:
    """Apply the templates and give their outputs. Safe to repeat: what is there is found or brought up to date.

    `shards` asks for a provisioned stream of that many shards in place of the template's on-demand one.
    Raises ConfigError naming everything in a template that is neither applied nor known not to be local.
    """
    dependencies = locate(clients, application)
    models = [_read(path, dependencies, application, parameters) for path in templates]
    problems = [problem for model in models for problem in unknown(model.resources.values())]
    if problems:
        raise ConfigError(problems)
    outputs: Outputs = {}
    for model in models:
        known = _apply(model, dependencies, Deployment(clients, shards))
        outputs |= {name: str(value) for name, value in model.outputs(_lookup(known)).items()}
    return outputs


def _apply(model: Template, dependencies: StackParameters, deployment: Deployment) -> dict[str, Attributes]:
    known: dict[str, Attributes] = {}
    for resource in model.resources.values():
        item = _place(resource, dependencies, known)
        entry = APPLIED.get(resource.type)
        made = entry.apply(deployment, item.properties, item.attributes) if entry else item.attributes
        known[resource.id] = made
    return known


def placed(
    templates: Sequence[Path],
    clients: ClientFactory,
    *,
    application: str = "stream-app",
    parameters: Mapping[str, Any] | None = None,
) -> list[Placed]:
    """Every resource of the templates resolved, without making any: what the runners work from.

    What AWS names at random (a key) is called after its logical id.
    """
    dependencies = locate(clients, application)
    found: list[Placed] = []
    for path in templates:
        known: dict[str, Attributes] = {}
        for resource in _read(path, dependencies, application, parameters).resources.values():
            found.append(_place(resource, dependencies, known))
            known[resource.id] = found[-1].attributes
    return found


def unknown(resources: Iterable[Resource]) -> list[Problem]:
    """Types and properties that the deployer would have to pass over in silence."""
    problems = []
    for resource in resources:
        if resource.type in NOT_LOCAL:
            continue
        if resource.type not in APPLIED:
            problems.append(Problem(f"{resource.id} is a {resource.type}", "add it to APPLIED or NOT_LOCAL"))
            continue
        for name in sorted(set(resource.properties) - APPLIED[resource.type].properties):
            if (resource.type, name) not in NOT_LOCAL_PROPERTIES:
                what = f"{resource.id} ({resource.type}) has the property {name}"
                problems.append(Problem(what, "apply it, or add it to NOT_LOCAL_PROPERTIES"))
    return problems


def locate(clients: ClientFactory, application: str) -> StackParameters:
    """The account and region that the clients work in; the stack is called after the application."""
    sqs = clients("sqs")
    account = clients("sts").get_caller_identity()["Account"]
    return StackParameters(
        account, sqs.meta.region_name, sqs.meta.endpoint_url.rstrip("/"), stack=application
    )


def _read(
    path: Path, dependencies: StackParameters, application: str, parameters: Mapping[str, Any] | None
) -> Template:
    return read(path, dependencies, {**LOCAL_PARAMETERS, "Application": application, **(parameters or {})})


def _place(resource: Resource, dependencies: StackParameters, known: Mapping[str, Attributes]) -> Placed:
    properties = evaluate(resource.properties, resource.stack, _lookup(known))
    attributes = identity(dependencies, resource.id, resource.type, properties)
    return Placed(resource.id, resource.type, properties, attributes)


def _lookup(known: Mapping[str, Attributes]) -> Any:
    def lookup(name: str, attribute: str) -> Any:
        try:
            return known[name][attribute]
        except KeyError:
            raise wrong(
                f"{name} has no {attribute}", "teach stream_app.local.deployers.identity of it"
            ) from None

    return lookup
