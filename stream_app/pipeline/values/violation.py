"""A value that is not of its field's type: where it is, what was found and what was expected."""

from __future__ import annotations

from stream_app.model.record import Code

_LONGEST_PATH = 80
_KINDS = {ord('"'): "text", ord("{"): "an object", ord("["): "an array", ord("n"): "null"}
_KINDS |= {ord("t"): "a boolean", ord("f"): "a boolean"}


class ViolationError(Exception):
    """One value that does not fit. Its words describe the value and never quote it: a reason leaves the payload.

    Containers call `within` on the way out, so that the path begins at the record.
    """

    def __init__(self, expected: str, found: str, code: Code = Code.SCHEMA_VIOLATION) -> None:
        super().__init__()
        self.expected, self.found, self.code = expected, found, code
        self._path: list[str] = []

    def within(self, step: str) -> ViolationError:
        """The same error, seen from the value that contains this one."""
        self._path.append(step)
        return self

    def __str__(self) -> str:
        said = f"expected {self.expected}, found {self.found}"
        path = "".join(reversed(self._path)).removeprefix(".")
        if len(path) > _LONGEST_PATH:
            path = f"{path[: _LONGEST_PATH // 2]}…{path[-_LONGEST_PATH // 2 :]}"
        return f"field {path}: {said}" if path else said


def json_kind(raw: bytes) -> str:
    """What a JSON value is, in words."""
    return _KINDS.get(raw[0], "a number") if raw else "nothing"
