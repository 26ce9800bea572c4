"""`python -m tests.house`: print each bound of the source with what was counted; exit code 1 where one is missed."""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
PACKAGES = ("stream_app", "anomaly")
MEDIAN_LINES, P99_LINES, FILE_LINES, FLAT_MODULES, ANY = 7, 30, 300, 14, 150
# Words that name nothing in Kinesis, KCL, Avro or Python: each is to be replaced by a standard term.
WORDS = frozenset(
    re.findall(
        r"\w+",
        """carry conform desk door foretell gather guilty innocent letters meet origins rehearse rehearsal road room
        settle shelf tether thrift thrifty verdict way world""",
    )
)


class Line(NamedTuple):
    """One bound: what is counted, the count, the most that is allowed, and where it is exceeded."""

    what: str
    found: float
    most: float
    where: Sequence[str] = ()

    @property
    def kept(self) -> bool:
        """Whether the bound is kept."""
        return self.found <= self.most


def sources() -> Iterator[tuple[Path, str]]:
    """Each module of the product with its text."""
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            yield path.relative_to(ROOT), path.read_text()


def lines() -> list[Line]:
    """Count everything."""
    texts = dict(sources())
    trees = {path: ast.parse(text) for path, text in texts.items()}
    sizes = sorted(size for tree in trees.values() for size in _functions(tree))
    long = {str(path): text.count("\n") for path, text in texts.items() if text.count("\n") > FILE_LINES}
    flat = Counter(str(path.parent) for path in texts if path.name not in ("__init__.py", "__main__.py"))
    crowded = {package: count for package, count in flat.items() if count > FLAT_MODULES}
    loose = sum(len(re.findall(r"\bAny\b", _without_imports(text))) for text in texts.values())
    words = sorted({name for tree in trees.values() for name in _names(tree) if WORDS & set(_parts(name))})
    modules = sorted(str(path) for path in texts if WORDS & set(_parts(path.stem)))
    return [
        Line("lines of a function, median", median(sizes), MEDIAN_LINES),
        Line("lines of a function, 99th percentile", sizes[len(sizes) * 99 // 100], P99_LINES),
        Line(f"files of more than {FILE_LINES} lines", len(long), 0, _told(long)),
        Line(f"packages of more than {FLAT_MODULES} modules", len(crowded), 0, _told(crowded)),
        Line("uses of Any", loose, ANY - 1),
        Line("modules named by a private word", len(modules), 0, modules),
        Line("functions and classes named by a private word", len(words), 0, words),
    ]


def _functions(tree: ast.Module) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            yield (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 1


def _names(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name


def _parts(name: str) -> list[str]:
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower().split("_")


def _without_imports(text: str) -> str:
    return re.sub(r"^from typing import .*$", "", text, flags=re.MULTILINE)


def _told(counts: dict[str, int]) -> list[str]:
    return [f"{name}: {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])]


def main() -> int:
    """Print the table."""
    found = lines()
    for line in found:
        sys.stdout.write(
            f"{'kept' if line.kept else 'MISSED':7}{line.what}: {line.found:g} (at most {line.most:g})\n"
        )
        sys.stdout.writelines(f"         {place}\n" for place in line.where)
    return 0 if all(line.kept for line in found) else 1


if __name__ == "__main__":
    sys.exit(main())
