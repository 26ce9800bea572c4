"""Limits on the source: sizes, uses of Any, and wording. `python -m tests.house` prints the violations."""

from __future__ import annotations

from functools import cache

import pytest

from tests.house import words
from tests.house.bounds import Bound, bounds, sources


@cache
def found() -> dict[str, Bound]:
    return {bound.name: bound for bound in bounds(sources())}


@pytest.mark.parametrize("name", ["median", "p99", "files", "packages", "any", "modules", "names", "texts"])
def test_a_bound_is_kept(name: str) -> None:
    bound = found()[name]
    assert bound.kept, "\n".join([f"{bound.found:g} {bound.what} (at most {bound.most:g})", *bound.where])


def test_all_bounds_are_tested() -> None:
    assert found().keys() == {"median", "p99", "files", "packages", "any", "modules", "names", "texts"}


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("settle_shard", {"settle"}),
        ("TheDesk", {"desk"}),
        ("letters_of", {"letters"}),
        ("dead_letters", set()),
        ("DeadLetters", set()),
        ("always", set()),
    ],
)
def test_private_words_in_names(name: str, expected: set[str]) -> None:
    assert words.in_name(name) == expected


@pytest.mark.parametrize(
    "text",
    [
        "There is room for two dead letters in the dead-letter queue.",
        "By the way, in this way or the same way, a way to do it.",
        "An underway metadata outdoors roadmap: --rehearse, world-readable.",
    ],
)
def test_words_in_standard_phrases_are_no_private_words(text: str) -> None:
    assert words.in_texts(f'"""{text}"""\n# {text}\nx = "{text}"\n') == []


def test_private_words_are_found_with_their_lines() -> None:
    source = '"""First.\n\nThe guilty row has its way.\n"""\n\nx = 1  # a door\nraise ValueError(f"{x} of so many")'
    assert words.in_texts(source) == [(3, "guilty"), (3, "way"), (6, "door"), (7, "so many")]
    assert words.in_texts('key = "world"\n') == [], "the name of something stored"
