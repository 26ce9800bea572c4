"""The style of help texts and error messages: no double spaces, no final full stop, a hint, no private words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import typer.core
import typer.main

from stream_app.cli.main import app
from tests.house.words import in_texts

ROOT = Path(__file__).parents[2]
COMMANDS = typer.main.get_command(app)


class Message(NamedTuple):
    """One construction of a Problem: its place, and the text of its two arguments."""

    place: str
    what: str
    hint: str | None


def commands(
    command: typer.core.TyperCommand | object, path: str = "stream-app"
) -> Iterator[tuple[str, object]]:
    """Yield each command and subcommand with its path."""
    yield path, command
    if isinstance(command, typer.core.TyperGroup):
        for name, child in command.commands.items():
            yield from commands(child, f"{path} {name}")


def help_texts(command: object) -> Iterator[str]:
    """Yield the help of a command and of its own options and arguments."""
    yield getattr(command, "help", None) or ""
    for parameter in getattr(command, "params", []):
        if parameter.name != "help":
            yield getattr(parameter, "help", None) or ""


def text_of(node: ast.expr, names: dict[str, ast.expr]) -> str | None:
    """Return the text of a literal; each replaced field of an f-string is `x`. None for any other expression."""
    if isinstance(node, ast.Name) and node.id in names:
        return text_of(names[node.id], {})
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "x" for part in node.values)
    return None


def problems() -> Iterator[Message]:
    """Yield the messages of all `Problem(what, hint)` in the source whose text is a literal."""
    for path in sorted((ROOT / "stream_app").rglob("*.py")):
        tree = ast.parse(path.read_text())
        for scope in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            names = {
                target.id: node.value
                for node in ast.walk(scope)
                if isinstance(node, ast.Assign)
                for target in node.targets
                if isinstance(target, ast.Name)
            }
            for node in ast.walk(scope):
                if (
                    isinstance(node, ast.Call)
                    and isinstance(node.func, ast.Name)
                    and node.func.id == "Problem"
                ):
                    arguments = [*node.args, *(keyword.value for keyword in node.keywords)]
                    assert len(arguments) == 2, f"{path}:{node.lineno}: a Problem needs a hint"
                    what, hint = (text_of(argument, names) for argument in arguments)
                    if what is not None:
                        yield Message(f"{path.relative_to(ROOT)}:{node.lineno}", what, hint)


def private_words(text: str) -> list[str]:
    return [word for _, word in in_texts(repr(f"{text} "))]


@pytest.mark.parametrize(("path", "command"), list(commands(COMMANDS)))
def test_help_is_uniform(path: str, command: object) -> None:
    for text in help_texts(command):
        assert text.strip(), f"{path}: a command or option has no help"
        assert text[0].isupper() or text.startswith("%(prog)s"), f"{path}: {text!r} starts in lower case"
        assert "  " not in text, f"{path}: {text!r} has a double space"
        assert not private_words(text), f"{path}: {text!r} has {private_words(text)}"


@pytest.mark.parametrize(("path", "command"), list(commands(COMMANDS)))
def test_options_with_a_value_have_a_metavar(path: str, command: object) -> None:
    for parameter in getattr(command, "params", []):
        takes_value = not getattr(parameter, "is_flag", False) and parameter.name != "help"
        assert not takes_value or parameter.metavar, f"{path}: {parameter.name} has no metavar"


def test_there_are_messages() -> None:
    assert len(list(problems())) > 50


@pytest.mark.parametrize("message", list(problems()), ids=lambda message: message.place)
def test_error_messages_say_what_is_wrong_and_a_remedy(message: Message) -> None:
    assert message.what.strip()
    assert message.hint is None or message.hint.strip(), "the hint is empty"
    for text in filter(None, (message.what, message.hint)):
        assert not text.endswith("."), text
        assert "  " not in text, text
        assert not private_words(text), private_words(text)
