"""The identity of a resource: the values of `Ref` and `Fn::GetAtt`, as documented, known before it is created."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from stream_app.local.deployers.intrinsics import Attributes, Properties, PseudoParameters


class _Kind(NamedTuple):
    """The property that holds the name, the service and resource part of the ARN, and whether Ref is the ARN."""

    name: str
    service: str
    resource: str
    ref_is_arn: bool = False


_KINDS: Mapping[str, _Kind] = {
    "AWS::CloudWatch::Alarm": _Kind("AlarmName", "cloudwatch", "alarm:{name}"),
    "AWS::DynamoDB::Table": _Kind("TableName", "dynamodb", "table/{name}"),
    # On AWS these two ARNs end with a random ID.
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


def arn(pseudo: PseudoParameters, service: str, resource: str) -> str:
    """Return an ARN. IAM ARNs have no region; S3 ARNs have neither region nor account."""
    region = "" if service in ("iam", "s3") else pseudo.region
    account = "" if service == "s3" else pseudo.account
    return f"arn:{pseudo.partition}:{service}:{region}:{account}:{resource}"


def identity(pseudo: PseudoParameters, logical: str, type_: str, properties: Properties) -> Attributes:
    """Return Ref, Arn and Name of a resource. Without an explicit name it is named after stack and logical path."""
    kind = _KINDS.get(type_)
    if kind is None:
        return {"Ref": logical}
    name = str(properties.get(kind.name) or f"{pseudo.stack}-{logical.replace('.', '-')}")
    bus = properties.get("EventBusName", "default")
    resource_arn = arn(pseudo, kind.service, kind.resource.format(name=name, bus=bus))
    attributes = {"Ref": resource_arn if kind.ref_is_arn else name, "Arn": resource_arn, "Name": name}
    if type_ == "AWS::SQS::Queue":
        attributes |= {"Ref": f"{pseudo.queues}/{pseudo.account}/{name}", "QueueName": name}
    if type_ == "AWS::SNS::Topic":
        attributes |= {"TopicArn": resource_arn, "TopicName": name}
    return attributes
