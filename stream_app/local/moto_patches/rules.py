"""EventBridge rules: delivery to targets as AWS documents it.

With this patch:

- a disabled rule sends nothing
- targets receive the documented envelope (moto omits `account`)
- `Input` and `InputPath` are applied
- a Kinesis stream can be a target
- an unreachable queue or stream does not fail PutEvents; the event goes to the target's dead-letter queue
- a replay sends only the events in its time window, and only to the rules that it names
- a PutEvents request is limited to 1 MiB
- compiled JSONPath expressions are cached (moto compiles eight for each event and target: 100 events/s)
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
# In the order used by AWS. Other fields of moto's event, such as the ingestion time, serve input templates only.
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

# moto's own type of an event lacks fields that moto adds, such as `account` and `replay-name`.
Event = Any
# A target as PutTargets receives it: moto keeps the decoded JSON without a type.
Target = dict[str, Any]

_parse = lru_cache(maxsize=1_024)(parse)
_encode = msgspec.json.Encoder().encode
_send_by_moto = Rule.send_to_targets
_put_by_moto = EventsBackend.put_events
_log = logging.getLogger(__name__)


def send_to_targets(self: Rule, original_event: Event, transform_input: bool = True) -> None:
    """Send a matching event to every target of the rule.

    `transform_input` is part of moto's signature; targets handled here always apply their input settings.
    """
    if self.state == "DISABLED" or not self.event_pattern.matches_event(original_event):
        return
    for target in self.targets:
        arn = parse_arn(target["Arn"])
        if arn.service in ("sqs", "kinesis"):
            _deliver(self, target, arn, original_event)
        elif arn.service == "events" and not arn.resource_type:
            _archive(self, original_event)
        else:
            single = copy.copy(self)
            single.targets = [target]
            _send_by_moto(single, original_event, transform_input)


def _deliver(rule: Rule, target: Target, arn: Arn, event: Event) -> None:
    try:
        text = _input(target, event)
        if arn.service == "sqs":
            group = target.get("SqsParameters", {}).get("MessageGroupId")
            sqs_backends[arn.account][arn.region].send_message(arn.resource_id, text, group_id=group)
        else:
            path = target.get("KinesisParameters", {}).get("PartitionKeyPath", "$.id")
            stream = kinesis_backends[arn.account][arn.region].describe_stream(None, arn.resource_id)
            stream.put_record(str(_select(event, path)), "", b64encode(text.encode()).decode())
    except (ServiceException, JsonRESTError) as error:
        _dead_letter(rule, target, event, error)


def _dead_letter(rule: Rule, target: Target, event: Event, error: ServiceException | JsonRESTError) -> None:
    """Send the event to the target's dead-letter queue with the error, or drop it if the target has none.

    The failure is not reported to the caller because PutEvents has already accepted the event.
    """
    code = error.code if isinstance(error, ServiceException) else error.error_type
    queue = target.get("DeadLetterConfig", {}).get("Arn")
    _log.warning("rule %s could not reach target %s: %s", rule.name, target["Arn"], code)
    if not queue:
        return
    arn = parse_arn(queue)
    attributes = {
        "RULE_ARN": rule.arn,
        "TARGET_ARN": target["Arn"],
        "ERROR_CODE": code,
        "ERROR_MESSAGE": error.message,
    }
    sqs_backends[arn.account][arn.region].send_message(
        arn.resource_id,
        _encode(envelope(event)).decode(),
        message_attributes={
            name: {"DataType": "String", "StringValue": str(value)} for name, value in attributes.items()
        },
    )


def envelope(event: Event) -> Event:
    """Return the event in the form that targets receive."""
    sent = {name: event[name] for name in _ENVELOPE if name in event}
    if isinstance(sent["time"], int | float):
        sent["time"] = iso_8601_datetime_without_milliseconds(utcfromtimestamp(int(sent["time"])))
    return sent


def _input(target: Target, event: Event) -> str:
    if "Input" in target:
        return str(target["Input"])
    if path := target.get("InputPath"):
        return _encode(_select(envelope(event), path)).decode()
    if transformer := target.get("InputTransformer"):
        transformed = EventTemplateParser.parse(
            input_template=transformer["InputTemplate"],
            input_paths_map=transformer.get("InputPathsMap", {}),
            event=event | envelope(event),
        )
        return _encode(transformed).decode()
    return _encode(envelope(event)).decode()


def _select(event: Event, path: str) -> object:
    """Return the first match of a JSONPath; None if there is no match."""
    found = _parse(path).find(event)
    return found[0].value if found else None


def _archive(rule: Rule, event: Event) -> None:
    """Append the event to the archive that owns this rule, unless the archive was deleted."""
    archives = events_backends[rule.account_id][rule.region_name].archives
    archive = archives.get(rule.name.removeprefix(_ARCHIVE_RULE))
    if archive is not None and archive.rule is rule:
        archive.events.append(event)


def replay_events(self: Replay, archive: Archive) -> None:
    """Resend the archived events in the replay's time window, with `replay-name` set."""
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
    """PutEvents with the limit on the total request size. Raises ValidationException."""
    if sum(map(_size, events)) > MAX_REQUEST_BYTES:
        message = "Total size of the entries in the request is over the limit."
        raise JsonRESTError("ValidationException", message)
    return _put_by_moto(self, events)


def _size(entry: Event) -> int:
    """Return the entry size as AWS calculates it: 14 bytes for `Time` plus the UTF-8 length of the other fields."""
    texts = [
        entry.get("Source"),
        entry.get("DetailType"),
        entry.get("Detail"),
        *(entry.get("Resources") or ()),
    ]
    return sum(len(text.encode()) for text in texts if text) + (14 if entry.get("Time") is not None else 0)


def apply() -> None:
    """Install the patch."""
    replace(Rule, "send_to_targets", send_to_targets)
    replace(Replay, "replay_events", replay_events)
    replace(EventsBackend, "put_events", put_events)
    replace(jsonpath, "parse", _parse)
