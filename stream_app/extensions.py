"""Finds extensions: modules in a folder beside the program's start, and entry points of installed distributions."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from stream_app.errors import Problem


class Extension(NamedTuple):
    """What a module or an entry point provides.

    `name` is the module's or the entry point's name, `source` the file or distribution for messages, and `value` the
    module, or the object that the entry point refers to.
    """

    name: str
    source: str
    value: object


def local(folder: str, problems: list[Problem]) -> Iterator[Extension]:
    """Import the modules and packages of `folder` in the working directory, sorted by name.

    Names that start with an underscore are skipped, as are folders without `__init__.py`. A module that cannot be
    imported is appended to `problems`.
    """
    for path in _module_files(Path.cwd() / folder):
        name, source = _module_name(path), path.relative_to(Path.cwd()).as_posix()
        if path.name == "__init__.py" and path.parent.with_suffix(".py").is_file():
            hint = "rename one of them: Python imports both under the same name"
            problems.append(Problem(f"{folder}/{name}.py and {source} are the same module", hint))
            continue
        try:
            module = _load(f"{folder}.{name}", path)
        except (Exception, SystemExit) as error:
            what = f"{source} cannot be imported: {type(error).__name__}: {error}"
            problems.append(Problem(what, "run it by itself to see why"))
        else:
            yield Extension(name, source, module)


def installed(group: str, problems: list[Problem]) -> Iterator[Extension]:
    """Load the entry points of a group; one that cannot be loaded is appended to `problems`."""
    for entry in _entry_points(group, tuple(sys.path)):
        source = f"distribution {_distribution(entry)} ({entry.name} = {entry.value})"
        try:
            value = entry.load()
        except (Exception, SystemExit) as error:
            what = f"{source}: entry point of {group} cannot be loaded: {type(error).__name__}: {error}"
            problems.append(Problem(what, "correct or uninstall the distribution"))
        else:
            yield Extension(entry.name, source, value)


def installed_folder(group: str, name: str) -> Path | None:
    """The folder of the module that the entry point `name` refers to; None without such an entry point."""
    for entry in _entry_points(group, tuple(sys.path)):
        if entry.name == name:
            try:
                spec = importlib.util.find_spec(entry.module)
            except Exception:  # `installed` reports it
                return None
            return Path(spec.origin).parent if spec and spec.origin else None
    return None


@lru_cache(maxsize=8)
def _entry_points(group: str, _path: tuple[str, ...]) -> tuple[EntryPoint, ...]:
    """Sorted entry points. Cached by the import path, because a scan reads the metadata of every distribution."""
    return tuple(sorted(entry_points(group=group), key=lambda entry: (entry.name, _distribution(entry))))


def _distribution(entry: EntryPoint) -> str:
    return entry.dist.name if entry.dist is not None else "unknown"


def _module_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    found = [*folder.glob("*.py"), *folder.glob("*/__init__.py")]
    return sorted((path for path in found if not _module_name(path).startswith("_")), key=_module_name)


def _module_name(path: Path) -> str:
    return path.parent.name if path.name == "__init__.py" and path.parent.parent.name else path.stem


def _load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"not a Python module: {path}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses, for example, look up their module there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        for loaded in [one for one in sys.modules if one == name or one.startswith(f"{name}.")]:
            del sys.modules[loaded]
        raise
    return module
