"""Deployers for the stream, the event bus, its rules and its archive."""

from __future__ import annotations

from stream_app.local.deployers.deployer import Deployer, Deployment, attribute_text, deployer, get_or_none
from stream_app.local.deployers.intrinsics import Attributes, Properties, TemplateValue

_MISSING = ("ResourceNotFoundException",)


def stream(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the stream with the requested number of shards; set retention period and encryption."""
    kinesis, name = deployment.clients("kinesis"), attributes["Name"]
    existing = get_or_none(_MISSING, kinesis.describe_stream_summary, StreamName=name)
    if existing is None:
        kinesis.create_stream(StreamName=name, **_capacity(properties, deployment.shards))
        kinesis.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
        existing = kinesis.describe_stream_summary(StreamName=name)
    current = existing["StreamDescriptionSummary"]
    hours = properties.get("RetentionPeriodHours", current["RetentionPeriodHours"])
    if hours > current["RetentionPeriodHours"]:
        kinesis.increase_stream_retention_period(StreamName=name, RetentionPeriodHours=hours)
    if hours < current["RetentionPeriodHours"]:
        kinesis.decrease_stream_retention_period(StreamName=name, RetentionPeriodHours=hours)
    if "StreamEncryption" in properties and current.get("EncryptionType", "NONE") == "NONE":
        kinesis.start_stream_encryption(StreamName=name, **properties["StreamEncryption"])
    return attributes


def _capacity(properties: Properties, shards: int | None) -> dict[str, TemplateValue]:
    # An on-demand stream cannot be created with a chosen number of shards; local runs need only a few.
    if shards is not None:
        return {"ShardCount": shards, "StreamModeDetails": {"StreamMode": "PROVISIONED"}}
    mode = properties.get("StreamModeDetails", {"StreamMode": "PROVISIONED"})
    count = {} if mode["StreamMode"] == "ON_DEMAND" else {"ShardCount": properties.get("ShardCount", 1)}
    return {"StreamModeDetails": mode, **count}


def bus(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the event bus if it does not exist."""
    events, name = deployment.clients("events"), attributes["Name"]
    if get_or_none(_MISSING, events.describe_event_bus, Name=name) is None:
        events.create_event_bus(Name=name)
    return attributes


def rule(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Put the rule and its targets, including retry policies and dead-letter queues."""
    events, name = deployment.clients("events"), attributes["Name"]
    bus_name = properties.get("EventBusName", "default")
    optional = {n: properties[n] for n in ("Description", "State") if n in properties}
    pattern = attribute_text(properties["EventPattern"])
    events.put_rule(Name=name, EventPattern=pattern, EventBusName=bus_name, **optional)
    events.put_targets(Rule=name, Targets=properties["Targets"], EventBusName=bus_name)
    return {**attributes, "Ref": f"{bus_name}|{name}"}


def archive(deployment: Deployment, properties: Properties, attributes: Attributes) -> Attributes:
    """Create the archive, or update an existing one."""
    events, name = deployment.clients("events"), attributes["Name"]
    optional = {n: properties[n] for n in ("Description", "RetentionDays") if n in properties}
    if "EventPattern" in properties:
        optional["EventPattern"] = attribute_text(properties["EventPattern"])
    if get_or_none(_MISSING, events.describe_archive, ArchiveName=name) is None:
        events.create_archive(ArchiveName=name, EventSourceArn=properties["SourceArn"], **optional)
    else:
        events.update_archive(ArchiveName=name, **optional)
    return attributes


DEPLOYERS: dict[str, Deployer] = {
    "AWS::Kinesis::Stream": deployer(
        stream, "Name", "RetentionPeriodHours", "ShardCount", "StreamEncryption", "StreamModeDetails"
    ),
    "AWS::Events::EventBus": deployer(bus, "Name"),
    "AWS::Events::Rule": deployer(
        rule, "Description", "EventBusName", "EventPattern", "Name", "State", "Targets"
    ),
    "AWS::Events::Archive": deployer(
        archive, "ArchiveName", "Description", "EventPattern", "RetentionDays", "SourceArn"
    ),
}
