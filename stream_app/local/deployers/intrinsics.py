"""CloudFormation intrinsic functions, evaluated in the context of a stack."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from stream_app.errors import ConfigError, Problem

NO_VALUE = object()

# A value in a template: decoded YAML whose shape depends on the resource type, or NO_VALUE.
TemplateValue = Any
Properties = Mapping[str, TemplateValue]
# The values of Ref and Fn::GetAtt of one resource.
Attributes = Mapping[str, str]
# Returns an attribute of a resource by logical path and name, such as ("Ingest.Stream", "Arn").
Lookup = Callable[[str, str], str]


@dataclass(frozen=True, slots=True)
class PseudoParameters:
    """The values of the AWS:: pseudo parameters. `queues` is the SQS endpoint, the prefix of all queue URLs."""

    account: str
    region: str
    queues: str
    stack: str = "local"
    partition: str = "aws"
    suffix: str = "amazonaws.com"

    def value(self, name: str) -> TemplateValue:
        """Return the value of a pseudo parameter such as `AWS::Region`. Raises KeyError for an unknown name."""
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
    """A template within its hierarchy. `path` is "" for the root, else the logical IDs followed by a dot."""

    path: str
    body: Properties
    arguments: Properties
    pseudo: PseudoParameters
    parent: Stack | None = None
    children: dict[str, Stack] = field(default_factory=dict)

    def section(self, name: str) -> Properties:
        """Return a top-level section of the template, empty if it does not exist."""
        return self.body.get(name) or {}


def template_error(what: str, hint: str) -> ConfigError:
    """Return a ConfigError with one problem of a template."""
    return ConfigError([Problem(what, hint)])


def condition_holds(condition: str, stack: Stack) -> bool:
    """Evaluate a named condition of the stack. A condition can refer to parameters only."""
    try:
        expression = stack.section("Conditions")[condition]
    except KeyError:
        raise template_error(f"unknown condition {condition}", "declare it under Conditions") from None
    return bool(evaluate(expression, stack, _no_resources))


def _no_resources(name: str, attribute: str) -> str:
    raise template_error(f"a condition refers to the resource {name}", "refer to parameters only")


def evaluate(expression: TemplateValue, stack: Stack, lookup: Lookup) -> TemplateValue:
    """Resolve every intrinsic function in an expression. An item or property set to AWS::NoValue is removed."""
    if isinstance(expression, list):
        items = [evaluate(item, stack, lookup) for item in expression]
        return [item for item in items if item is not NO_VALUE]
    if not isinstance(expression, dict):
        return expression
    if len(expression) == 1:
        [(name, argument)] = expression.items()
        # A policy document may also contain a mapping with the single key "Condition", but its value is a mapping.
        if (
            name == "Ref"
            or str(name).startswith("Fn::")
            or (name == "Condition" and isinstance(argument, str))
        ):
            return _call(name, argument, stack, lookup)
    pairs = {key: evaluate(value, stack, lookup) for key, value in expression.items()}
    return {key: value for key, value in pairs.items() if value is not NO_VALUE}


def _call(name: str, argument: TemplateValue, stack: Stack, lookup: Lookup) -> TemplateValue:
    if name == "Fn::If":
        condition, yes, no = argument
        return evaluate(yes if condition_holds(condition, stack) else no, stack, lookup)
    if name == "Fn::Sub":
        return _sub(argument, stack, lookup)
    if name not in _FUNCTIONS:
        raise template_error(f"unsupported function {name}", f"use one of {', '.join(sorted(_FUNCTIONS))}")
    plain = argument if name in ("Ref", "Fn::GetAtt", "Condition") else evaluate(argument, stack, lookup)
    return _FUNCTIONS[name](plain, stack, lookup)


def _ref(name: str, stack: Stack, lookup: Lookup) -> TemplateValue:
    if name.startswith("AWS::"):
        return stack.pseudo.value(name)
    if name in stack.section("Parameters"):
        return _parameter(name, stack, lookup)
    return lookup(stack.path + name, "Ref")


def _parameter(name: str, stack: Stack, lookup: Lookup) -> TemplateValue:
    spec = stack.section("Parameters")[name]
    value = stack.arguments.get(name, spec.get("Default"))
    if stack.parent is not None and name in stack.arguments:
        value = evaluate(value, stack.parent, lookup)
    return int(value) if spec["Type"] == "Number" and not isinstance(value, int) else value


def _get_att(argument: list[str], stack: Stack, lookup: Lookup) -> TemplateValue:
    logical, attribute = argument
    child = stack.children.get(logical)
    if child is None:
        return lookup(stack.path + logical, attribute)
    name = attribute.removeprefix("Outputs.")
    if name not in child.section("Outputs"):
        raise template_error(f"{logical} has no output {name}", "declare it under Outputs")
    return evaluate(child.section("Outputs")[name]["Value"], child, lookup)


def _sub(argument: TemplateValue, stack: Stack, lookup: Lookup) -> str:
    text, variables = (argument, {}) if isinstance(argument, str) else argument

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("!"):
            return f"${{{name[1:]}}}"
        if name in variables:
            return str(evaluate(variables[name], stack, lookup))
        return str(_get_att(name.split(".", 1), stack, lookup) if "." in name else _ref(name, stack, lookup))

    return re.sub(r"\$\{([^}]+)\}", value, text)


_FUNCTIONS: Mapping[str, Callable[[TemplateValue, Stack, Lookup], TemplateValue]] = {
    "Ref": _ref,
    "Condition": lambda name, stack, _: condition_holds(name, stack),
    "Fn::GetAtt": _get_att,
    "Fn::Join": lambda a, *_: str(a[0]).join(str(item) for item in a[1]),
    "Fn::Select": lambda a, *_: a[1][int(a[0])],
    "Fn::Split": lambda a, *_: a[1].split(a[0]),
    "Fn::Equals": lambda a, *_: str(a[0]) == str(a[1]),
    "Fn::Not": lambda a, *_: not a[0],
    "Fn::And": lambda a, *_: all(a),
    "Fn::Or": lambda a, *_: any(a),
}
