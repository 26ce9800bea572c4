"""Private words: metaphors and turns of phrase for which Kinesis, KCL, Avro or Python have a standard term."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator

NAMES = frozenset(
    re.findall(
        r"\w+",
        """carry conform desk door foretell gather guilty innocent letters meet origins rehearse rehearsal road room
        settle shelf tether thrift thrifty verdict way world""",
    )
)
"""Words that no module, class or function has in its name."""

_WORDS = (
    r"desks?",
    r"doors?",
    r"foretell(?:s|ing)?|foretold",
    r"gather(?:s|ed|ing)?",
    r"guilty|innocent",
    r"(?<!dead )(?<!dead-)(?<!capital )(?<!case )(?<!consist of )letters?",
    r"(?<!must )meet(?:s|ing)?(?! the contract)|(?<!was )(?<!are )(?<!not )met",
    r"(?<!--)rehears(?:e|es|ed|ing|al|als)",
    r"roads?",
    r"rooms?(?! for| in| left| to)",
    r"settl(?:e|es|ed|ing)",
    r"shelf|shelves",
    r"tether(?:s|ed)?",
    r"thrift|thrifty",
    r"verdicts?",
    (
        r"(?<!by the )(?<!this )(?<!same )(?<!either )(?<!other )(?<!a )(?<!one )(?<!one-)(?<!two-)(?<!any )(?<!no )"
        r"ways?(?! to| of| that| in which)"
    ),
    r"worlds?(?! Meteorological)",
    r"carr(?:y|ies|ied) out",
    r"anew",
    r"so many(?! that)",
    r"(?<!there )(?:is|are) (?-i:none)(?! of)",
    r"for (?:it|they) (?:is|are)",
    r"in (?:its|their) turn",
    r"comes? to lie",
    r"what bec(?:ame|omes) of",
)
_PRIVATE = re.compile("|".join(rf"(?<![\w-])(?:{word})(?![\w-])" for word in _WORDS), re.IGNORECASE)


def in_name(name: str) -> frozenset[str]:
    """Return the private words of an identifier. A dead letter is a term of AWS."""
    parts = re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()
    return NAMES.intersection(re.sub(r"dead_letters?", "", parts).split("_"))


def in_texts(source: str) -> list[tuple[int, str]]:
    """Return the line number and the word of each private word in docstrings, comments and messages."""
    found = [
        (line + text.count("\n", 0, match.start()), " ".join(match.group().split()))
        for line, text in (*_comments(source), *_strings(source))
        for match in _PRIVATE.finditer(text)
    ]
    return sorted(found)


def in_page(page: str) -> list[tuple[int, str]]:
    """Return the line number and the word of each private word in a page, template or properties file."""
    lines = enumerate(page.splitlines(), 1)
    return [(number, match.group()) for number, line in lines for match in _PRIVATE.finditer(line)]


def _comments(source: str) -> Iterator[tuple[int, str]]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def _strings(source: str) -> Iterator[tuple[int, str]]:
    """Strings with a space in them: what has none is the name of something stored."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value.strip():
            yield node.lineno, node.value
