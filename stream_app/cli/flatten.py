"""Commands whose options are fields of dataclasses."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from typing import get_type_hints


def flatten_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace each dataclass parameter of `command` by one parameter per field.

    Typer reads the options of a command from its signature. With this decorator, commands can share a group of
    options: a dataclass whose fields are annotated as Typer parameters are.
    """
    hints = get_type_hints(command, include_extras=True)
    groups = {name: hint for name, hint in hints.items() if is_dataclass(hint) and isinstance(hint, type)}

    @wraps(command)
    def run(**options: object) -> None:
        for name, group in groups.items():
            options[name] = group(**{field.name: options.pop(field.name) for field in fields(group)})
        command(**options)

    parameters: list[Parameter] = []
    for parameter in signature(command).parameters.values():
        group = groups.get(parameter.name)
        parameters += (
            [parameter.replace(annotation=hints[parameter.name])] if group is None else _fields(group)
        )
    keyword_only = [parameter.replace(kind=Parameter.KEYWORD_ONLY) for parameter in parameters]
    vars(run)["__signature__"] = Signature(keyword_only)
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in keyword_only}
    return run


def _fields(group: type) -> Iterator[Parameter]:
    hints = get_type_hints(group, include_extras=True)
    for field in fields(group):
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=hints[field.name])
