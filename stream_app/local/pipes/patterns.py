"""What a pipe sees of a record: JSON paths, filters and input templates, as EventBridge Pipes documents them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

from stream_app.local.deployers.intrinsics import wrong

Steps = tuple[str | int, ...]
Record = Mapping[str, Any]
Filter = Callable[[Record], bool]
Transform = Callable[[Record, Record], bytes]
Original = Callable[[Record], bytes]
Reserved = Mapping[str, Callable[[], str]]

MISSING = object()
_ALL = "*"
_PATH = re.compile(r"\$((?:\.[\w\-/]+|\.\*|\[\d+\]|\[\*\])*)")
_STEP = re.compile(r"\.([\w\-/]+|\*)|\[(\d+|\*)\]")
_PLACEHOLDER = re.compile(r"<(\$[^<>]*|aws\.pipes\.[\w.\-]+)>")


def compile_path(path: str) -> Steps:
    """The steps of a JSON path: dots, array indexes and wildcards. Raises ConfigError for any other syntax."""
    match = _PATH.fullmatch(path)
    if match is None:
        raise wrong(f"{path!r} is no JSON path that a pipe takes", "use dots, [n] and * only")
    return tuple(
        name if name else index if index == _ALL else int(index) for name, index in _STEP.findall(match[1])
    )


def at(value: Any, steps: Steps) -> Any:
    """What stands at a path, or MISSING; a wildcard gives the list of all that matches."""
    for place, step in enumerate(steps):
        if step == _ALL:
            items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
            found = [at(item, steps[place + 1 :]) for item in items]
            return [item for item in found if item is not MISSING]
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(value):
                return MISSING
        elif not isinstance(value, Mapping) or step not in value:
            return MISSING
        value = value[step]
    return value


def parsed(text: str | bytes) -> Any:
    """A record's body as filters and paths see it: the JSON object or array that it holds, else the text."""
    try:
        value = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError):
        value = None
    if isinstance(value, dict | list):
        return value
    return text if isinstance(text, str) else text.decode("utf-8", "replace")


def compile_filters(patterns: Sequence[str]) -> Filter:
    """Whether a record matches one of the patterns (event patterns as JSON text); none of them lets all through.

    Raises ConfigError for a pattern that is none.
    """
    # moto is slow to import, and not needed where no pipe runs.
    from moto.events.exceptions import InvalidEventPatternException
    from moto.events.models import EventPattern

    try:
        loaded = [EventPattern.load(pattern) for pattern in patterns]
    except (InvalidEventPatternException, ValueError) as error:
        raise wrong(f"the filter of a pipe is no event pattern: {error}", "see FilterCriteria") from error

    def matches(pattern: EventPattern, record: Record) -> bool:
        # moto copies what it looks at, and a record is much larger than what a pattern asks of it.
        return pattern.matches_event(cast(Any, asked_of(record, pattern.get_pattern())))

    return lambda record: not loaded or any(matches(pattern, record) for pattern in loaded)


def asked_of(value: Any, pattern: Any) -> Any:
    """The part of a record that a pattern looks at; it matches exactly when the whole does."""
    if not isinstance(value, Mapping) or not isinstance(pattern, Mapping) or "$or" in pattern:
        return value
    return {name: asked_of(value[name], part) for name, part in pattern.items() if name in value}


def compile_value(value: str) -> Callable[[Record], Any]:
    """A target parameter: a JSON path into the source's record, or a text that stands for itself."""
    if not value.startswith("$"):
        return lambda record: value
    steps = compile_path(value)
    return lambda record: at(record, steps)


def compile_template(template: str | None, payload: str, original: Original, reserved: Reserved) -> Transform:
    """How a record becomes what the target gets: bytes of (record as the source gave it, as paths see it).

    `payload` names its body ("body" of SQS, "data" of Kinesis), `original` gives that body's own bytes, which is
    what a template of nothing but `<$.body>` stands for. Without a template the record goes on whole. In a
    template that is JSON a path puts in JSON, inside of quotes text; in free text it puts in text where it is a
    string. A path that leads nowhere puts in nothing. Raises ConfigError for a path or variable not known.
    """
    if template is None:
        return lambda raw, seen: msgspec.json.encode(raw)
    if template.strip() == f"<$.{payload}>":
        return lambda raw, seen: original(raw)
    pieces = _PLACEHOLDER.split(template)
    is_json = template.lstrip()[:1] in ("{", "[", '"')
    parts: list[Callable[[Record, Record], str]] = []
    for place, piece in enumerate(pieces):
        if place % 2 == 0:
            parts.append(_constant(piece))
            continue
        quoted = len(re.findall(r'(?<!\\)"', "".join(pieces[:place:2]))) % 2 == 1
        parts.append(_variable(piece, reserved, quoted=quoted, is_json=is_json))
    return lambda raw, seen: "".join(part(raw, seen) for part in parts).encode()


def _constant(piece: str) -> Callable[[Record, Record], str]:
    return lambda raw, seen: piece


def _variable(
    name: str, reserved: Reserved, *, quoted: bool, is_json: bool
) -> Callable[[Record, Record], str]:
    if name.startswith("$"):
        steps = compile_path(name)
        return lambda raw, seen: _shown(at(seen, steps), quoted, is_json)
    if name == "aws.pipes.event":
        return lambda raw, seen: _shown(msgspec.json.encode(raw).decode(), quoted, is_json)
    if name == "aws.pipes.event.json":
        return lambda raw, seen: _shown(seen, quoted, is_json)
    if name not in reserved:
        raise wrong(f"a pipe has no variable <{name}>", f"known are {', '.join(sorted(reserved))}")
    value = reserved[name]
    return lambda raw, seen: _shown(value(), quoted, is_json)


def _shown(value: Any, quoted: bool, is_json: bool) -> str:
    if value is MISSING:
        return ""
    if isinstance(value, str) and not quoted and not is_json:
        return value
    if quoted:
        shown = value if isinstance(value, str) else msgspec.json.encode(value).decode()
        return msgspec.json.encode(shown).decode()[1:-1]
    return msgspec.json.encode(value).decode()
