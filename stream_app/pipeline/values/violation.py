"""The error for a value that is not of its field's type: its path, what was expected and what was found."""

from __future__ import annotations

from stream_app.model.record import Code

_LONGEST_PATH = 80
_KINDS = {ord('"'): "text", ord("{"): "an object", ord("["): "an array", ord("n"): "null"}
_KINDS |= {ord("t"): "a boolean", ord("f"): "a boolean"}


class ViolationError(Exception):
    """A value that is not of its field's type.

    The message describes the value and never quotes it, as reasons are logged and must not expose payload data.
    The readers of containers call `within` while the error propagates, so that the path starts at the record.
    """

    def __init__(self, expected: str, found: str, code: Code = Code.SCHEMA_VIOLATION) -> None:
        super().__init__()
        self.expected, self.found, self.code = expected, found, code
        self._path: list[str] = []

    def within(self, step: str) -> ViolationError:
        """Add the step from the containing value to this one (`.name` or `[index]`) and return the same error."""
        self._path.append(step)
        return self

    def __str__(self) -> str:
        message = f"expected {self.expected}, found {self.found}"
        path = "".join(reversed(self._path)).removeprefix(".")
        if len(path) > _LONGEST_PATH:
            path = f"{path[: _LONGEST_PATH // 2]}…{path[-_LONGEST_PATH // 2 :]}"
        return f"field {path}: {message}" if path else message


def json_kind(raw: bytes) -> str:
    """Name the kind of an encoded JSON value for a message, from its first byte."""
    return _KINDS.get(raw[0], "a number") if raw else "nothing"
