"""The stream, the bus, its rules and its archive."""

from __future__ import annotations

from typing import Any

from stream_app.local.deployers.dependencies import Applied, Deployment, Properties, applied, attempt, text
from stream_app.local.deployers.identity import Attributes

_MISSING = ("ResourceNotFoundException",)


def stream(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Make the stream with as many shards as asked for, else as the template says; then retention and key."""
    kinesis, name = deployment.clients("kinesis"), attributes["Name"]
    there = attempt(_MISSING, kinesis.describe_stream_summary, StreamName=name)
    if there is None:
        kinesis.create_stream(StreamName=name, **_capacity(properties, deployment.shards))
        kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
        there = kinesis.describe_stream_summary(StreamName=name)
    now = there["StreamDescriptionSummary"]
    hours = properties.get("RetentionPeriodHours", now["RetentionPeriodHours"])
    if hours > now["RetentionPeriodHours"]:
        kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=hours)
    if hours < now["RetentionPeriodHours"]:
        kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=hours)
    if "StreamEncryption" in properties and now.get("EncryptionType", "NONE") == "NONE":
        kinesis.start_stream_encryption(StreamName=name, **properties["StreamEncryption"])
    return attributes


def _capacity(properties: Properties, shards: int | None) -> dict[str, Any]:
    # An on-demand stream has no number of shards to ask for; a laptop wants few.
    if shards is not None:
        return {"ShardCount": shards, "StreamModeDetails": {"StreamMode": "PROVISIONED"}}
    mode = properties.get("StreamModeDetails", {"StreamMode": "PROVISIONED"})
    count = {} if mode["StreamMode"] == "ON_DEMAND" else {"ShardCount": properties.get("ShardCount", 1)}
    return {"StreamModeDetails": mode, **count}


def bus(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Make the bus where it is missing."""
    events, name = deployment.clients("events"), attributes["Name"]
    if attempt(_MISSING, events.describe_event_bus, Name=name) is None:
        events.create_event_bus(Name=name)
    return attributes


def rule(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Put the rule and its targets, with their retry policies and dead letter queues."""
    events, name = deployment.clients("events"), attributes["Name"]
    place = {"EventBusName": properties.get("EventBusName", "default")}
    said = {n: properties[n] for n in ("Description", "State") if n in properties}
    events.put_rule(Name=name, EventPattern=text(properties["EventPattern"]), **said, **place)
    events.put_targets(Rule=name, Targets=properties["Targets"], **place)
    return {**attributes, "Ref": f"{place['EventBusName']}|{name}"}


def archive(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Make the archive, or bring the one that is there up to date."""
    events, name = deployment.clients("events"), attributes["Name"]
    said = {n: properties[n] for n in ("Description", "RetentionDays") if n in properties}
    if "EventPattern" in properties:
        said["EventPattern"] = text(properties["EventPattern"])
    if attempt(_MISSING, events.describe_archive, ArchiveName=name) is None:
        events.create_archive(ArchiveName=name, EventSourceArn=properties["SourceArn"], **said)
    else:
        events.update_archive(ArchiveName=name, **said)
    return attributes


APPLIED: dict[str, Applied] = {
    "AWS::Kinesis::Stream": applied(
        stream, "Name", "RetentionPeriodHours", "ShardCount", "StreamEncryption", "StreamModeDetails"
    ),
    "AWS::Events::EventBus": applied(bus, "Name"),
    "AWS::Events::Rule": applied(
        rule, "Description", "EventBusName", "EventPattern", "Name", "State", "Targets"
    ),
    "AWS::Events::Archive": applied(
        archive, "ArchiveName", "Description", "EventPattern", "RetentionDays", "SourceArn"
    ),
}
