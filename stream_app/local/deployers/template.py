"""Our CloudFormation templates, read as they are: nested stacks laid flat, in the order of their needs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

import yaml

from stream_app.errors import ConfigError, Problem
from stream_app.local.deployers.intrinsics import Lookup, Stack, StackParameters, evaluate, holds, wrong

STACK = "AWS::CloudFormation::Stack"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource whose condition holds. `id` is its logical path ("Ingest.Stream"); properties are unresolved."""

    id: str
    type: str
    properties: Mapping[str, Any]
    after: tuple[str, ...]
    stack: Stack


@dataclass(frozen=True, slots=True)
class Template:
    """Every resource of a template and its nested stacks, those they need before them."""

    root: Stack
    resources: Mapping[str, Resource]

    def outputs(self, lookup: Lookup) -> dict[str, Any]:
        """The parent's outputs, resolved."""
        declared = self.root.section("Outputs").items()
        return {
            name: evaluate(output["Value"], self.root, lookup)
            for name, output in declared
            if "Condition" not in output or holds(output["Condition"], self.root)
        }


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short tags; a date stays the text that it was."""


def _tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> Any:
    value: Any
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
    elif isinstance(node, yaml.SequenceNode):
        value = loader.construct_sequence(node, deep=True)
    elif isinstance(node, yaml.MappingNode):
        value = loader.construct_mapping(node, deep=True)
    if suffix == "GetAtt" and isinstance(value, str):
        value = value.split(".", 1)
    return {suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}": value}


_Loader.add_multi_constructor("!", _tag)
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def load(path: Path) -> Mapping[str, Any]:
    """One template file. Raises ConfigError when it cannot be read or is none."""
    try:
        body = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise wrong(f"cannot read {path.name}: {error}", "give a CloudFormation template") from error
    if not isinstance(body, dict) or not isinstance(body.get("Resources"), dict):
        raise wrong(f"{path.name} declares no Resources", "give a CloudFormation template")
    return body


def read(path: Path, dependencies: StackParameters, parameters: Mapping[str, Any]) -> Template:
    """A template with the stacks nested in it, in the order in which its resources can be made.

    Raises ConfigError for what cannot be read, a parameter without a value or unknown, a reference to nothing,
    a function that is not supported here, and a cycle.
    """
    body = load(path)
    _check_parameters(body, parameters)
    root = Stack("", body, parameters, dependencies)
    found: dict[str, Resource] = {}
    _collect(root, path.parent, found)
    return Template(root, {name: found[name] for name in _ordered(found)})


def _check_parameters(body: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    declared = body.get("Parameters") or {}
    problems = [
        Problem(f"the template has no parameter {n}", "leave it out") for n in given if n not in declared
    ]
    missing = [n for n, spec in declared.items() if n not in given and "Default" not in spec]
    problems += [Problem(f"the template's parameter {n} has no value", "give one") for n in missing]
    for name, value in given.items():
        pattern = declared.get(name, {}).get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, str(value)):
            problems.append(Problem(f"{name} = {value!r} is not allowed", f"it must match {pattern}"))
    if problems:
        raise ConfigError(problems)


def _collect(stack: Stack, folder: Path, found: dict[str, Resource]) -> None:
    for logical, body in stack.section("Resources").items():
        if "Condition" in body and not holds(body["Condition"], stack):
            continue
        properties = body.get("Properties") or {}
        if body["Type"] == STACK:
            nested = folder / properties["TemplateURL"]
            arguments = properties.get("Parameters") or {}
            child = Stack(f"{stack.path}{logical}.", load(nested), arguments, stack.dependencies, stack)
            stack.children[logical] = child
            _collect(child, nested.parent, found)
        else:
            after = body.get("DependsOn") or []
            names = tuple(stack.path + n for n in ([after] if isinstance(after, str) else after))
            found[stack.path + logical] = Resource(
                stack.path + logical, body["Type"], properties, names, stack
            )


def _ordered(found: Mapping[str, Resource]) -> list[str]:
    try:
        needs = {name: _needs(item, found) for name, item in found.items()}
        return list(TopologicalSorter(needs).static_order())
    except CycleError as error:
        circle = " -> ".join(error.args[1])
        raise wrong(f"resources need one another: {circle}", "break the circle") from error


def _needs(item: Resource, found: Mapping[str, Resource]) -> list[str]:
    needed: dict[str, None] = {}

    def note(name: str, attribute: str) -> str:
        if name not in found:
            raise wrong(f"{item.id} refers to {name}, which is not there", "name a resource")
        needed[name] = None
        return f"<{name}.{attribute}>"

    evaluate(item.properties, item.stack, note)
    for name in item.after:
        inside = [n for n in found if n == name or n.startswith(f"{name}.")]
        needed.update(dict.fromkeys(inside))
    return list(needed)
