"""The intrinsic functions of CloudFormation, and the stack in whose terms an expression is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stream_app.errors import ConfigError, Problem

NO_VALUE = object()

# What a resource is once it exists: ("Ingest.Stream", "Arn") -> its value; "Ref" names the physical id.
Lookup = Callable[[str, str], Any]


@dataclass(frozen=True, slots=True)
class StackParameters:
    """Where a template is deployed: what AWS:: pseudo parameters and names are made of.

    `queues` is the URL under which SQS serves its queues, without the account; `stack` the name of the stack.
    """

    account: str
    region: str
    queues: str
    stack: str = "local"
    partition: str = "aws"
    suffix: str = "amazonaws.com"

    def pseudo(self, name: str) -> Any:
        """The value of a pseudo parameter. Raises KeyError for a name that is none."""
        return {
            "AWS::AccountId": self.account,
            "AWS::Region": self.region,
            "AWS::Partition": self.partition,
            "AWS::URLSuffix": self.suffix,
            "AWS::StackName": self.stack,
            "AWS::NoValue": NO_VALUE,
        }[name]


@dataclass(frozen=True, slots=True)
class Stack:
    """One template in its place. `path` is "" for the parent, else its logical ids and a final dot."""

    path: str
    body: Mapping[str, Any]
    arguments: Mapping[str, Any]
    dependencies: StackParameters
    parent: Stack | None = None
    children: dict[str, Stack] = field(default_factory=dict)

    def section(self, name: str) -> Mapping[str, Any]:
        """A top-level section of the template; empty where there is none."""
        return self.body.get(name) or {}


def wrong(what: str, hint: str) -> ConfigError:
    """One problem of a template."""
    return ConfigError([Problem(what, hint)])


def holds(condition: str, stack: Stack) -> bool:
    """Whether a named condition of the stack is true; a condition sees parameters only."""
    try:
        expression = stack.section("Conditions")[condition]
    except KeyError:
        raise wrong(f"no condition {condition}", "declare it under Conditions") from None
    return bool(evaluate(expression, stack, _no_resources))


def _no_resources(name: str, attribute: str) -> Any:
    raise wrong(f"a condition refers to the resource {name}", "refer to parameters only")


def evaluate(expression: Any, stack: Stack, lookup: Lookup) -> Any:
    """An expression of a template with every intrinsic function resolved; AWS::NoValue removes its place."""
    if isinstance(expression, list):
        items = [evaluate(item, stack, lookup) for item in expression]
        return [item for item in items if item is not NO_VALUE]
    if not isinstance(expression, dict):
        return expression
    if len(expression) == 1:
        [(name, argument)] = expression.items()
        # A policy statement may hold a lone "Condition" too, but never a text.
        if (
            name == "Ref"
            or str(name).startswith("Fn::")
            or (name == "Condition" and isinstance(argument, str))
        ):
            return _call(name, argument, stack, lookup)
    pairs = {key: evaluate(value, stack, lookup) for key, value in expression.items()}
    return {key: value for key, value in pairs.items() if value is not NO_VALUE}


def _call(name: str, argument: Any, stack: Stack, lookup: Lookup) -> Any:
    if name == "Fn::If":
        condition, yes, no = argument
        return evaluate(yes if holds(condition, stack) else no, stack, lookup)
    if name == "Fn::Sub":
        return _sub(argument, stack, lookup)
    if name not in _FUNCTIONS:
        raise wrong(f"{name} is not supported here", f"known are {', '.join(sorted(_FUNCTIONS))}")
    plain = argument if name in ("Ref", "Fn::GetAtt", "Condition") else evaluate(argument, stack, lookup)
    return _FUNCTIONS[name](plain, stack, lookup)


def _ref(name: str, stack: Stack, lookup: Lookup) -> Any:
    if name.startswith("AWS::"):
        return stack.dependencies.pseudo(name)
    if name in stack.section("Parameters"):
        return _parameter(name, stack, lookup)
    return lookup(stack.path + name, "Ref")


def _parameter(name: str, stack: Stack, lookup: Lookup) -> Any:
    spec = stack.section("Parameters")[name]
    value = stack.arguments.get(name, spec.get("Default"))
    if stack.parent is not None and name in stack.arguments:
        value = evaluate(value, stack.parent, lookup)
    return int(value) if spec["Type"] == "Number" and not isinstance(value, int) else value


def _get_att(argument: list[str], stack: Stack, lookup: Lookup) -> Any:
    logical, attribute = argument
    child = stack.children.get(logical)
    if child is None:
        return lookup(stack.path + logical, attribute)
    name = attribute.removeprefix("Outputs.")
    if name not in child.section("Outputs"):
        raise wrong(f"{logical} has no output {name}", "declare it under Outputs")
    return evaluate(child.section("Outputs")[name]["Value"], child, lookup)


def _sub(argument: Any, stack: Stack, lookup: Lookup) -> str:
    text, own = (argument, {}) if isinstance(argument, str) else argument

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("!"):
            return f"${{{name[1:]}}}"
        if name in own:
            return str(evaluate(own[name], stack, lookup))
        return str(_get_att(name.split(".", 1), stack, lookup) if "." in name else _ref(name, stack, lookup))

    return re.sub(r"\$\{([^}]+)\}", value, text)


_FUNCTIONS: Mapping[str, Callable[[Any, Stack, Lookup], Any]] = {
    "Ref": _ref,
    "Condition": lambda name, stack, _: holds(name, stack),
    "Fn::GetAtt": _get_att,
    "Fn::Join": lambda a, *_: str(a[0]).join(str(item) for item in a[1]),
    "Fn::Select": lambda a, *_: a[1][int(a[0])],
    "Fn::Split": lambda a, *_: a[1].split(a[0]),
    "Fn::Equals": lambda a, *_: str(a[0]) == str(a[1]),
    "Fn::Not": lambda a, *_: not a[0],
    "Fn::And": lambda a, *_: all(a),
    "Fn::Or": lambda a, *_: any(a),
}
