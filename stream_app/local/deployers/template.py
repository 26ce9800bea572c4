"""Reads CloudFormation templates: flattens nested stacks and sorts the resources by their dependencies."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import yaml

from stream_app.errors import ConfigError, Problem
from stream_app.local.deployers.intrinsics import (
    Lookup,
    Properties,
    PseudoParameters,
    Stack,
    TemplateValue,
    condition_holds,
    evaluate,
    template_error,
)

STACK = "AWS::CloudFormation::Stack"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource whose condition is true. `id` is its logical path ("Ingest.Stream"); properties are unresolved."""

    id: str
    type: str
    properties: Properties
    depends_on: tuple[str, ...]
    stack: Stack


@dataclass(frozen=True, slots=True)
class Template:
    """Every resource of a template and its nested stacks, each after the resources that it depends on."""

    root: Stack
    resources: Mapping[str, Resource]

    def outputs(self, lookup: Lookup) -> dict[str, TemplateValue]:
        """Return the resolved outputs of the root stack."""
        declared = self.root.section("Outputs").items()
        return {
            name: evaluate(output["Value"], self.root, lookup)
            for name, output in declared
            if "Condition" not in output or condition_holds(output["Condition"], self.root)
        }


class _Loader(yaml.SafeLoader):
    """A YAML loader for CloudFormation's short function tags (`!Ref`). Dates are loaded as strings."""


def _tag(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> TemplateValue:
    value: TemplateValue
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


def load(path: Path) -> Properties:
    """Load a template file. Raises ConfigError if it cannot be read or is not a template."""
    try:
        body = _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise template_error(
            f"cannot read {path.name}: {error}", "specify a CloudFormation template"
        ) from error
    if not isinstance(body, dict) or not isinstance(body.get("Resources"), dict):
        raise template_error(f"{path.name} declares no Resources", "specify a CloudFormation template")
    return body


def read(path: Path, pseudo: PseudoParameters, parameters: Properties) -> Template:
    """Read a template and its nested stacks, with the resources in the order in which they can be created.

    Raises ConfigError if a template cannot be read, for an unknown parameter or one without a value, an unresolved
    reference, an unsupported function and a dependency cycle.
    """
    body = load(path)
    _check_parameters(body, parameters)
    root = Stack("", body, parameters, pseudo)
    found: dict[str, Resource] = {}
    _collect(root, path.parent, found)
    return Template(root, {name: found[name] for name in _ordered(found)})


def _check_parameters(body: Properties, given: Properties) -> None:
    declared = body.get("Parameters") or {}
    problems = [
        Problem(f"the template has no parameter {n}", "remove it") for n in given if n not in declared
    ]
    missing = [n for n, spec in declared.items() if n not in given and "Default" not in spec]
    problems += [Problem(f"the template's parameter {n} has no value", "specify one") for n in missing]
    for name, value in given.items():
        pattern = declared.get(name, {}).get("AllowedPattern")
        if pattern and not re.fullmatch(pattern, str(value)):
            problems.append(Problem(f"{name} = {value!r} is not allowed", f"it must match {pattern}"))
    if problems:
        raise ConfigError(problems)


def _collect(stack: Stack, folder: Path, found: dict[str, Resource]) -> None:
    for logical, body in stack.section("Resources").items():
        if "Condition" in body and not condition_holds(body["Condition"], stack):
            continue
        properties = body.get("Properties") or {}
        if body["Type"] == STACK:
            nested = folder / properties["TemplateURL"]
            arguments = properties.get("Parameters") or {}
            child = Stack(f"{stack.path}{logical}.", load(nested), arguments, stack.pseudo, stack)
            stack.children[logical] = child
            _collect(child, nested.parent, found)
        else:
            listed = body.get("DependsOn") or []
            depends_on = tuple(stack.path + n for n in ([listed] if isinstance(listed, str) else listed))
            found[stack.path + logical] = Resource(
                stack.path + logical, body["Type"], properties, depends_on, stack
            )


def _ordered(found: Mapping[str, Resource]) -> list[str]:
    try:
        graph = {name: _dependencies(item, found) for name, item in found.items()}
        return list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        cycle = " -> ".join(error.args[1])
        raise template_error(f"circular dependency: {cycle}", "remove one of these references") from error


def _dependencies(item: Resource, found: Mapping[str, Resource]) -> list[str]:
    names: dict[str, None] = {}

    def note(name: str, attribute: str) -> str:
        if name not in found:
            raise template_error(
                f"{item.id} refers to the unknown resource {name}", "declare it under Resources"
            )
        names[name] = None
        return f"<{name}.{attribute}>"

    evaluate(item.properties, item.stack, note)
    for name in item.depends_on:
        # DependsOn may name a nested stack, which stands for all of its resources.
        names.update(dict.fromkeys(n for n in found if n == name or n.startswith(f"{name}.")))
    return list(names)
