"""The secret for a target's authentication header: a plan stores only where to find it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from stream_app.errors import ConfigError, Problem

_HINT = "write --auth Authorization=env:NAME, or X-Api-Key=secret:NAME#field for Secrets Manager"
_FORM = re.compile(r"([A-Za-z0-9!#$%&'*+.^_`|~-]+)=(env|secret):([^#\s]+)(?:#(.+))?")


class Auth(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """An HTTP header and the source of its value: an environment variable or a Secrets Manager secret.

    `field` names a field of a secret that is a JSON object.
    """

    header: str
    source: str
    name: str
    field: str = ""


def parse_auth(text: str) -> Auth:
    """Parse `--auth HEADER=env:NAME` or `HEADER=secret:NAME#field`. Raises ConfigError."""
    found = _FORM.fullmatch(text)
    if found is None or (found[2] == "env" and found[4]):
        # The error does not repeat the text, because the user may have written the secret itself.
        raise ConfigError([Problem("--auth does not name the source of the secret", _HINT)])
    return Auth(found[1], found[2], found[3], found[4] or "")


# `Any`: boto3's stubs of Secrets Manager are not a dependency, and only one of its methods is called.
def secret_of(auth: Auth, environ: Mapping[str, str], client: Callable[[str], Any]) -> str:
    """Return the header's value. Raises ConfigError if there is no usable value, and boto3 errors.

    `client` returns the boto3 client of a service.
    """
    value: object
    if auth.source == "env":
        value = environ.get(auth.name)
        if not value:
            raise ConfigError([Problem(f"{auth.name} is not set", f"set it to the value of {auth.header}")])
    else:
        value = client("secretsmanager").get_secret_value(SecretId=auth.name).get("SecretString")
        value = _field(value, auth) if auth.field else value
    if not isinstance(value, str) or not value.strip():
        raise ConfigError([Problem(f"{auth.name} is not a text or is empty", _HINT)])
    secret = value.strip()
    if not (secret.isascii() and secret.isprintable()):
        raise ConfigError([Problem(f"{auth.name} is not valid in a header", "use printable ASCII only")])
    return secret


def _field(text: object, auth: Auth) -> object:
    try:
        document = json.loads(text) if isinstance(text, str | bytes) else None
    except ValueError:
        document = None  # the error's text would contain the secret
    if not isinstance(document, dict) or auth.field not in document:
        raise ConfigError([Problem(f"the secret {auth.name} has no field {auth.field}", _HINT)])
    return document[auth.field]
