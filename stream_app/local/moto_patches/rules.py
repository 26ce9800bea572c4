"""EventBridge rules: what reaches a target, and how fast.

Corrects: a disabled rule sends nothing; a target gets the envelope that AWS documents (moto drops the account);
`Input` and `InputPath` are heeded; a Kinesis stream can be a target; a queue or stream that cannot be reached does
not fail PutEvents: its event goes to the target's dead-letter queue; a replay sends the events of its time window, to
the rules that it names; a request has at most 1 MiB. moto compiles eight JSONPath expressions for every event and
target, and so passes on 100 events/s.
"""

from __future__ import annotations

import copy
import logging
from base64 import b64encode
from functools import lru_cache
from typing import Any

import msgspec
from jsonpath_ng import ext as jsonpath
from jsonpath_ng.ext.parser import parse
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.core.utils import iso_8601_datetime_without_milliseconds, unix_time, utcfromtimestamp
from moto.events.models import Archive, EventsBackend, Replay, ReplayState, Rule, events_backends
from moto.events.utils import EventTemplateParser
from moto.kinesis.models import kinesis_backends
from moto.moto_api._internal import mock_random
from moto.sqs.models import sqs_backends
from moto.utilities.arns import Arn, parse_arn

from stream_app.local.moto_patches.patch import replace

MAX_REQUEST_BYTES = 1024 * 1024
# The order of AWS; whatever else an event carries (an ingestion time) is for input templates only.
_ENVELOPE = (
    "version",
    "id",
    "detail-type",
    "source",
    "account",
    "time",
    "region",
    "resources",
    "detail",
    "replay-name",
)
_ARCHIVE_RULE = "Events-Archive-"

# moto's own type of an event is narrower than what it makes of one.
Event = Any
Target = dict[str, Any]

# A template's few expressions are the same for every event.
_parse = lru_cache(maxsize=1_024)(parse)
_encode = msgspec.json.Encoder().encode
_send_by_moto = Rule.send_to_targets
_put_by_moto = EventsBackend.put_events
_log = logging.getLogger(__name__)


def send_to_targets(self: Rule, original_event: Event, transform_input: bool = True) -> None:
    """Send a matching event to every target of the rule. `transform_input` is moto's; inputs are always heeded."""
    if self.state == "DISABLED" or not self.event_pattern.matches_event(original_event):
        return
    for target in self.targets:
        arn = parse_arn(target["Arn"])
        if arn.service in ("sqs", "kinesis"):
            _deliver(self, target, arn, original_event)
        elif arn.service == "events" and not arn.resource_type:
            _archive(self, original_event)
        else:
            alone = copy.copy(self)
            alone.targets = [target]
            _send_by_moto(alone, original_event, transform_input)


def _deliver(rule: Rule, target: Target, arn: Arn, event: Event) -> None:
    try:
        text = _input(target, event)
        if arn.service == "sqs":
            group = target.get("SqsParameters", {}).get("MessageGroupId")
            sqs_backends[arn.account][arn.region].send_message(arn.resource_id, text, group_id=group)
        else:
            path = target.get("KinesisParameters", {}).get("PartitionKeyPath", "$.id")
            stream = kinesis_backends[arn.account][arn.region].describe_stream(None, arn.resource_id)
            stream.put_record(str(_at(event, path)), "", b64encode(text.encode()).decode())
    except (ServiceException, JsonRESTError) as error:
        _dead_letter(rule, target, event, error)


def _dead_letter(rule: Rule, target: Target, event: Event, error: ServiceException | JsonRESTError) -> None:
    """Kept with why it failed, or dropped when the target has no queue for that: PutEvents has succeeded already."""
    code = error.code if isinstance(error, ServiceException) else error.error_type
    where = target.get("DeadLetterConfig", {}).get("Arn")
    _log.warning("rule %s could not reach target %s: %s", rule.name, target["Arn"], code)
    if not where:
        return
    arn = parse_arn(where)
    told = {
        "RULE_ARN": rule.arn,
        "TARGET_ARN": target["Arn"],
        "ERROR_CODE": code,
        "ERROR_MESSAGE": error.message,
    }
    sqs_backends[arn.account][arn.region].send_message(
        arn.resource_id,
        _encode(envelope(event)).decode(),
        message_attributes={
            name: {"DataType": "String", "StringValue": str(value)} for name, value in told.items()
        },
    )


def envelope(event: Event) -> Event:
    """The event as targets get it."""
    shown = {name: event[name] for name in _ENVELOPE if name in event}
    if isinstance(shown["time"], int | float):
        shown["time"] = iso_8601_datetime_without_milliseconds(utcfromtimestamp(int(shown["time"])))
    return shown


def _input(target: Target, event: Event) -> str:
    if "Input" in target:
        return str(target["Input"])
    if path := target.get("InputPath"):
        return _encode(_at(envelope(event), path)).decode()
    if transformer := target.get("InputTransformer"):
        made = EventTemplateParser.parse(
            input_template=transformer["InputTemplate"],
            input_paths_map=transformer.get("InputPathsMap", {}),
            event=event | envelope(event),
        )
        return _encode(made).decode()
    return _encode(envelope(event)).decode()


def _at(event: Event, path: str) -> Any:
    """What a JSONPath finds first; None when there is nothing."""
    found = _parse(path).find(event)
    return found[0].value if found else None


def _archive(rule: Rule, event: Event) -> None:
    """The archive that moto made this rule for; an archive that is gone takes nothing."""
    archives = events_backends[rule.account_id][rule.region_name].archives
    archive = archives.get(rule.name.removeprefix(_ARCHIVE_RULE))
    if archive is not None and archive.rule is rule:
        archive.events.append(event)


def replay_events(self: Replay, archive: Archive) -> None:
    """Send the archived events of the time window again, marked with the replay's name."""
    bus_name = self.destination["Arn"].split("/")[-1]
    bus = events_backends[self.account_id][self.region].describe_event_bus(bus_name)
    rules = self.destination.get("FilterArns")
    first, last = float(self.event_start_time), float(self.event_end_time)
    for event in list(archive.events):
        if first <= float(event["time"]) <= last:
            again: Event = {**event, "id": str(mock_random.uuid4()), "replay-name": self.name}
            for rule in list(bus.rules.values()):
                if not rules or rule.arn in rules:
                    send_to_targets(rule, again)
    self.state = ReplayState.COMPLETED
    self.end_time = unix_time()


def put_events(self: EventsBackend, events: list[Event]) -> list[Event]:
    """PutEvents, with its limit of bytes in all. Raises ValidationException."""
    if sum(map(_size, events)) > MAX_REQUEST_BYTES:
        message = "Total size of the entries in the request is over the limit."
        raise JsonRESTError("ValidationException", message)
    return _put_by_moto(self, events)


def _size(entry: Event) -> int:
    """What AWS counts of an entry: 14 bytes for a time, and the text of the other fields in UTF-8."""
    texts = [
        entry.get("Source"),
        entry.get("DetailType"),
        entry.get("Detail"),
        *(entry.get("Resources") or ()),
    ]
    return sum(len(text.encode()) for text in texts if text) + (14 if entry.get("Time") is not None else 0)


def apply() -> None:
    """Put the correction in place."""
    replace(Rule, "send_to_targets", send_to_targets)
    replace(Replay, "replay_events", replay_events)
    replace(EventsBackend, "put_events", put_events)
    replace(jsonpath, "parse", _parse)
