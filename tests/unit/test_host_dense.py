"""Code that is copied to one place does what it did."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from types import CodeType

import pytest

from stream_app.forkserver.host_dense import fill, gather, run


def adder(more: int) -> Callable[[int], int]:
    def add(value: int = 1) -> int:
        return value + more

    return add


def counting(limit: int) -> Iterator[int]:
    yield from (number for number in range(limit) if number % 2)


def not_run() -> int:
    return 1


def test_what_runs_is_met_and_nothing_else() -> None:
    met = run(lambda: adder(1)(2))
    names = {code.co_qualname for code in met.values() if code.co_filename == __file__}
    assert {"adder", "adder.<locals>.add"} <= names
    assert "not_run" not in names


def test_an_error_is_passed_on_and_nobody_looks_on_after_it() -> None:
    with pytest.raises(ZeroDivisionError):
        run(lambda: 1 // 0)
    assert sys.getprofile() is None


def test_functions_do_the_same_with_a_copy_of_their_code() -> None:
    old, add = (adder.__code__, counting.__code__, not_run.__code__), adder(10)
    met = run(lambda: [add(), *counting(5)])
    assert gather(met) >= 2
    assert adder.__code__ is old[0], "it did not run"
    assert add.__code__ is not old[0].co_consts[1]
    assert counting.__code__ is not old[1]
    assert counting.__code__ == old[1]
    assert not_run.__code__ is old[2]
    assert (add(), add(5), list(counting(6))) == (11, 15, [1, 3, 5])
    assert run(lambda: list(counting(3))).keys() & {id(code) for code in _all(counting.__code__)}


def _all(code: CodeType) -> Iterator[CodeType]:
    yield code
    for item in code.co_consts:
        if isinstance(item, CodeType):
            yield from _all(item)


def test_functions_of_one_code_still_share_it() -> None:
    one, other = adder(1), adder(2)
    gather(run(one))
    assert one.__code__ is other.__code__
    assert (one(1), other(1)) == (2, 3)


def test_where_room_was_taken_new_objects_lie_on_pages_of_their_own() -> None:
    """As many holes as there are, none is met again."""
    things = [bytes(200) for _ in range(2_000)]
    holes = {id(thing) >> 12 for thing in things}
    del things[::2]
    gc.collect()
    kept = fill()
    new = [bytes(200) for _ in range(1_000)]
    assert sum(id(thing) >> 12 in holes for thing in new) < len(new) // 10
    assert kept
