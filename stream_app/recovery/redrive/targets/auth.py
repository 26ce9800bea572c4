"""The secret that a request needs: a plan says where it is, and nothing but the request ever holds it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stream_app.errors import ConfigError, Problem

_HINT = "write --auth Authorization=env:NAME, or X-Api-Key=secret:NAME#field of Secrets Manager"
_FORM = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)=(env|secret):([^#\s]+)(?:#(.+))?")


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A header, and where its value is: in an environment variable, or in a secret of Secrets Manager.

    `field` names a field of a secret that is a JSON object.
    """

    header: str
    source: str
    name: str
    field: str = ""


def parse_auth(text: str) -> Auth:
    """What `--auth HEADER=env:NAME` or `HEADER=secret:NAME#field` says. Raises ConfigError."""
    found = _FORM.fullmatch(text)
    if found is None or (found[2] == "env" and found[4]):
        # The text is not repeated: somebody may have written the secret itself.
        raise ConfigError([Problem("--auth does not say where the secret is", _HINT)])
    return Auth(found[1], found[2], found[3], found[4] or "")


def secret_of(auth: Auth, environ: Mapping[str, str], client: Callable[[str], Any]) -> str:
    """The header's value. `client` makes a boto3 client; raises what it raises, and ConfigError where it is not."""
    if auth.source == "env":
        value: Any = environ.get(auth.name)
        if not value:
            raise ConfigError([Problem(f"{auth.name} is not set", f"set it to the value of {auth.header}")])
    else:
        value = client("secretsmanager").get_secret_value(SecretId=auth.name).get("SecretString")
        value = _field(value, auth) if auth.field else value
    if not isinstance(value, str) or not value.strip():
        raise ConfigError([Problem(f"{auth.name} holds no text", _HINT)])
    found: str = value.strip()
    if not (found.isascii() and found.isprintable()):
        raise ConfigError([Problem(f"{auth.name} cannot stand in a header", "it must be printable ASCII")])
    return found


def _field(text: Any, auth: Auth) -> Any:
    try:
        document = json.loads(text)
    except (TypeError, ValueError):
        document = None  # the error would repeat the secret
    if not isinstance(document, dict) or auth.field not in document:
        raise ConfigError([Problem(f"the secret {auth.name} has no field {auth.field}", _HINT)])
    return document[auth.field]
