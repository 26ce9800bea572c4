"""What a resource is called before it is made: the values of Ref and GetAtt that AWS documents."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stream_app.local.deployers.intrinsics import StackParameters

Attributes = Mapping[str, Any]


class _Kind(NamedTuple):
    """The property that names it, the service and the resource part of its ARN, and whether Ref is the ARN."""

    name: str
    service: str
    resource: str
    ref_is_arn: bool = False


_KINDS: Mapping[str, _Kind] = {
    "AWS::CloudWatch::Alarm": _Kind("AlarmName", "cloudwatch", "alarm:{name}"),
    "AWS::DynamoDB::Table": _Kind("TableName", "dynamodb", "table/{name}"),
    # AWS ends these two ARNs with a random id.
    "AWS::Events::ApiDestination": _Kind("Name", "events", "api-destination/{name}"),
    "AWS::Events::Connection": _Kind("Name", "events", "connection/{name}"),
    "AWS::Events::Archive": _Kind("ArchiveName", "events", "archive/{name}"),
    "AWS::Events::EventBus": _Kind("Name", "events", "event-bus/{name}"),
    "AWS::Events::Rule": _Kind("Name", "events", "rule/{bus}/{name}"),
    "AWS::IAM::ManagedPolicy": _Kind("ManagedPolicyName", "iam", "policy/{name}", ref_is_arn=True),
    "AWS::IAM::Role": _Kind("RoleName", "iam", "role/{name}"),
    "AWS::KMS::Key": _Kind("", "kms", "key/{name}"),
    "AWS::Kinesis::Stream": _Kind("Name", "kinesis", "stream/{name}"),
    "AWS::Lambda::EventSourceMapping": _Kind("", "lambda", "event-source-mapping:{name}"),
    "AWS::Lambda::Function": _Kind("FunctionName", "lambda", "function:{name}"),
    "AWS::Logs::LogGroup": _Kind("LogGroupName", "logs", "log-group:{name}:*"),
    "AWS::Pipes::Pipe": _Kind("Name", "pipes", "pipe/{name}"),
    "AWS::S3::Bucket": _Kind("BucketName", "s3", "{name}"),
    "AWS::SNS::Topic": _Kind("TopicName", "sns", "{name}", ref_is_arn=True),
    "AWS::SQS::Queue": _Kind("QueueName", "sqs", "{name}"),
}


def arn(dependencies: StackParameters, service: str, resource: str) -> str:
    """An ARN. IAM's have no region, those of S3 no account either."""
    region = "" if service in ("iam", "s3") else dependencies.region
    account = "" if service == "s3" else dependencies.account
    return f"arn:{dependencies.partition}:{service}:{region}:{account}:{resource}"


def identity(
    dependencies: StackParameters, logical: str, type_: str, properties: Mapping[str, Any]
) -> Attributes:
    """Ref, Arn and Name of a resource; what has no name of its own is called after stack and logical path."""
    kind = _KINDS.get(type_)
    if kind is None:
        return {"Ref": logical}
    name = str(properties.get(kind.name) or f"{dependencies.stack}-{logical.replace('.', '-')}")
    bus = properties.get("EventBusName", "default")
    its_arn = arn(dependencies, kind.service, kind.resource.format(name=name, bus=bus))
    found = {"Ref": its_arn if kind.ref_is_arn else name, "Arn": its_arn, "Name": name}
    if type_ == "AWS::SQS::Queue":
        found |= {"Ref": f"{dependencies.queues}/{dependencies.account}/{name}", "QueueName": name}
    if type_ == "AWS::SNS::Topic":
        found |= {"TopicArn": its_arn, "TopicName": name}
    return found
