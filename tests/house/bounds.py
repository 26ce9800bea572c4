"""The bounds of the source, and what is counted for each."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from tests.house import words

ROOT = Path(__file__).parents[2]
PACKAGES = ("stream_app", "anomaly")
MEDIAN_LINES, P99_LINES, FILE_LINES, FLAT_MODULES, ANY = 7, 30, 300, 14, 150


class Bound(NamedTuple):
    """One bound: its name, what is counted, the count, the most that is allowed, and where it is exceeded."""

    name: str
    what: str
    found: float
    most: float
    where: Sequence[str] = ()

    @property
    def kept(self) -> bool:
        """Whether the bound is kept."""
        return self.found <= self.most


def sources() -> dict[Path, str]:
    """Return each module of the product with its text."""
    paths = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT): path.read_text() for path in paths}


def pages() -> dict[Path, str]:
    """Return the documentation, templates and properties files with their texts."""
    patterns = ("*.md", "docs/*.md", "anomaly/*.md", "infra/*", "properties/*.properties", "Makefile")
    paths = [path for pattern in patterns for path in sorted(ROOT.glob(pattern))]
    return {path.relative_to(ROOT): path.read_text() for path in paths}


def bounds(texts: Mapping[Path, str]) -> list[Bound]:
    """Count everything."""
    trees = {path: ast.parse(text) for path, text in texts.items()}
    return [*_sizes(texts, trees), _any(texts), *_words(texts, trees)]


def _sizes(texts: Mapping[Path, str], trees: Mapping[Path, ast.Module]) -> list[Bound]:
    sizes = sorted(size for tree in trees.values() for size in _functions(tree))
    long = {str(path): text.count("\n") for path, text in texts.items() if text.count("\n") > FILE_LINES}
    flat = Counter(str(path.parent) for path in texts if path.name not in ("__init__.py", "__main__.py"))
    crowded = {package: count for package, count in flat.items() if count > FLAT_MODULES}
    return [
        Bound("median", "lines of a function, median", median(sizes), MEDIAN_LINES),
        Bound("p99", "lines of a function, 99th percentile", sizes[len(sizes) * 99 // 100], P99_LINES),
        Bound("files", f"files of more than {FILE_LINES} lines", len(long), 0, _listed(long)),
        Bound("packages", f"packages of more than {FLAT_MODULES} modules", len(crowded), 0, _listed(crowded)),
    ]


def _any(texts: Mapping[Path, str]) -> Bound:
    uses = {str(path): len(re.findall(r"\bAny\b", _without_imports(text))) for path, text in texts.items()}
    return Bound(
        "any", "uses of Any", sum(uses.values()), ANY - 1, _listed({k: v for k, v in uses.items() if v > 9})
    )


def _words(texts: Mapping[Path, str], trees: Mapping[Path, ast.Module]) -> list[Bound]:
    modules = [str(path) for path in texts if words.in_name(path.stem)]
    names = [
        f"{path}:{line}: {name}"
        for path, tree in trees.items()
        for line, name in _names(tree)
        if words.in_name(name)
    ]
    found = [f"{path}:{line}: {word}" for path, text in texts.items() for line, word in words.in_texts(text)]
    found += [
        f"{path}:{line}: {word}" for path, text in pages().items() for line, word in words.in_page(text)
    ]
    return [
        Bound("modules", "modules named by a private word", len(modules), 0, modules),
        Bound("names", "functions and classes named by a private word", len(names), 0, names),
        Bound("texts", "private words in docstrings, comments, messages and pages", len(found), 0, found),
    ]


def _functions(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 1


def _names(tree: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def _without_imports(text: str) -> str:
    return re.sub(r"^from typing import .*$", "", text, flags=re.MULTILINE)


def _listed(counts: Mapping[str, int]) -> list[str]:
    return [f"{name}: {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]
