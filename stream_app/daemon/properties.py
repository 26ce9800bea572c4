"""The effective properties file of one run of the daemon: the base file with the overrides of the run."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from stream_app.errors import ConfigError, Problem

_REQUIRED = {
    "applicationName": "set it to the name of the application and lease table",
    "streamName": "set it to the stream to read",
    "executableName": "set it to stream-app-consumer",
    "AwsCredentialsProvider": "set it to DefaultCredentialsProvider",
    "timeoutInSeconds": "set it, or KCL waits forever for a hanging child process",
    "shutdownGraceMillis": "set it to 20000, or a stop leaves no time for the final checkpoint",
}
_NUMBERS = ("timeoutInSeconds", "shutdownGraceMillis")
FROM_ENVIRONMENT = {
    "STREAM_APP_APPLICATION": "applicationName",
    "STREAM_APP_STREAM": "streamName",
    "STREAM_APP_REGION": "regionName",
    "STREAM_APP_WORKER_ID": "workerId",
}
_SECRET = re.compile(r"secret|password|token|access_?key|state_?key$", re.IGNORECASE)
_GIVES_KEYS = re.compile(r"(Static|Basic|AwsBasic)\w*CredentialsProvider\b.*\|")


def effective(base: Mapping[str, str], overrides: Mapping[str, str | None]) -> dict[str, str]:
    """Apply overrides to the base properties; None removes a property."""
    merged: dict[str, str | None] = {**base, **overrides}
    return {name: value for name, value in merged.items() if value is not None}


def from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the properties of the daemon that are set by environment variables, with which settings share names."""
    return {name: value for key, name in FROM_ENVIRONMENT.items() if (value := environ.get(key))}


def render(base: Mapping[str, str], overrides: Mapping[str, str | None]) -> str:
    """Return the text of the effective properties file, sorted by name.

    Raises ConfigError for values that Java and Python would read differently: Java reads the file as Latin-1 and
    treats backslashes as escapes.
    """
    properties = effective(base, overrides)
    invalid = [name for name, value in properties.items() if not _plain(name) or not _plain(value)]
    if invalid:
        hint = "use printable ASCII without \\"
        raise ConfigError([Problem(f"property {name} has invalid characters", hint) for name in invalid])
    return "".join(f"{name} = {properties[name]}\n" for name in sorted(properties))


def problems(properties: Mapping[str, str], path: str) -> list[Problem]:
    """Return all problems of the effective properties; `path` is the search path for the consumer program."""
    found = [
        Problem(f"{name} is not set", hint) for name, hint in _REQUIRED.items() if not properties.get(name)
    ]
    for name in _NUMBERS:
        value = properties.get(name, "1")
        if not value.isdecimal() or int(value) < 1:
            hint = "give a whole number above 0; KCL treats 0 as unset"
            found.append(Problem(f"{name} = {value!r} is not a positive whole number", hint))
    if properties.get("callProcessRecordsEvenForEmptyRecordList", "").lower() != "true":
        what = "callProcessRecordsEvenForEmptyRecordList is not true"
        found.append(Problem(what, "set it to true, so that segments of idle shards are closed"))
    executable = properties.get("executableName", "").split()
    if executable and shutil.which(executable[0], path=path) is None:
        hint = "pip install stream-app in this environment"
        found.append(Problem(f"program {executable[0]} is not on the PATH", hint))
    return found + _secrets(properties)


def _secrets(properties: Mapping[str, str]) -> list[Problem]:
    found = [name for name, value in properties.items() if _SECRET.search(name) or _GIVES_KEYS.search(value)]
    hint = "give credentials through the environment or a role, because KCL logs every property"
    return [Problem(f"property {name} contains a secret", hint) for name in found]


def _plain(text: str) -> bool:
    return text.isascii() and text.isprintable() and "\\" not in text


@contextmanager
def private_file(text: str, name: str = "effective.properties") -> Iterator[Path]:
    """Create a temporary file that only this user can access (mode 0600 in a folder of mode 0700)."""
    with tempfile.TemporaryDirectory(prefix="stream-app-") as folder:
        path = Path(folder, name)
        with os.fdopen(
            os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii"
        ) as file:
            file.write(text)
        yield path


def replace_text(path: Path, text: str) -> None:
    """Replace the text of a private file atomically."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(text)
    new.replace(path)
