"""Properties that every detector must satisfy, as functions that raise AssertionError on a violation.

A test suite generates rows, for example with Hypothesis, and calls `check` or single functions of `LAWS`:

    @given(rows(), st.randoms(use_true_random=False))
    def test_my_detector(rows, rng):
        laws.check(lambda: MyDetector(FEATURES), rows, rng)
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from anomaly.detector import Detector, FloatMatrix, FloatVector
from anomaly.keyed_state.indexed_keys import Forgetting, Numbered

Make = Callable[[], Detector]


class Rows(NamedTuple):
    """n rows in order of arrival: their keys, and X of shape (n, features), NaN where missing."""

    keys: list[str]
    X: FloatMatrix

    def part(self, index: Sequence[int] | slice) -> Rows:
        """Return the rows at these indices, in this order."""
        rows = range(len(self.keys))[index] if isinstance(index, slice) else index
        return Rows([self.keys[i] for i in rows], self.X[list(rows)])


Law = Callable[[Make, Rows, random.Random], None]


def check(make: Make, rows: Rows, rng: random.Random) -> None:
    """Check all laws. `make` must return a new detector with the same parameters on each call."""
    for law in LAWS:
        law(make, rows, rng)


def scores_are_finite(make: Make, rows: Rows, rng: random.Random) -> None:
    """Each row has one finite score ≥ 0, even if values are missing, infinite or huge."""
    detector = make()
    scores = _scores(detector, rows)
    _hold(
        scores.shape == (len(rows.keys),) and scores.dtype == np.float64,
        "process_many must return (n,) float64",
    )
    _hold(bool(np.all(np.isfinite(scores) & (scores >= 0.0))), f"a score is negative or not finite: {scores}")
    _hold(len(detector.process_many([], rows.X[:0])) == 0, "an empty call must return no scores")
    _hold(np.isfinite(detector.threshold) and detector.threshold > 0.0, "the threshold must be above 0")


def batches_equal_single_rows(make: Make, rows: Rows, rng: random.Random) -> None:
    """A batch has the same scores as its rows one at a time, bit for bit."""
    one = make()
    _same(_scores(make(), rows), _in_parts(one, _parts(rows, range(1, len(rows.keys)))), "a row at a time")


def splits_do_not_matter(make: Make, rows: Rows, rng: random.Random) -> None:
    """Scores do not depend on how rows are split into calls, including empty calls."""
    n = len(rows.keys)
    cuts = sorted(rng.randint(0, n) for _ in range(rng.randint(1, 6)))
    _same(_scores(make(), rows), _in_parts(make(), _parts(rows, cuts)), f"cut at {cuts}")


def keys_are_independent(make: Make, rows: Rows, rng: random.Random) -> None:
    """Scores do not depend on how rows of different keys are interleaved; each key alone has the same scores."""
    expected = _scores(make(), rows)
    mixed = _interleaved(rows.keys, rng)
    _same(expected[mixed], _scores(make(), rows.part(mixed)), "another interleaving")
    for key in dict.fromkeys(rows.keys):
        own = [i for i, k in enumerate(rows.keys) if k == key]
        _same(expected[own], _scores(make(), rows.part(own)), f"{key!r} alone")


def runs_are_repeatable(make: Make, rows: Rows, rng: random.Random) -> None:
    """Two detectors with the same parameters and rows return the same scores."""
    _same(_scores(make(), rows), _scores(make(), rows), "a second run")


def snapshots_are_exact(make: Make, rows: Rows, rng: random.Random) -> None:
    """Scores after restoring a snapshot equal those without interruption; taking a snapshot changes nothing."""
    expected = _scores(make(), rows)
    cut = rng.randint(0, len(rows.keys))
    head, tail = rows.part(slice(cut)), rows.part(slice(cut, None))
    survivor = make()
    survivor.process_many(*head)
    state = survivor.snapshot()
    _same(expected[cut:], _scores(survivor, tail), f"after a snapshot at {cut}")
    _same(expected[cut:], _scores(_restored(make, state), tail), f"restored at {cut}")
    again = _restored(make, _restored(make, state).snapshot())
    _same(expected[cut:], _scores(again, tail), f"restored twice at {cut}")


def splitting_keys_is_lossless(make: Make, rows: Rows, rng: random.Random) -> None:
    """A state that is split by `keep` and merged again is unchanged; a key that was not kept starts as unseen."""
    expected = _scores(make(), rows)
    cut = rng.randint(0, len(rows.keys))
    head, tail = rows.part(slice(cut)), rows.part(slice(cut, None))
    parent = make()
    parent.process_many(*head)
    state = parent.snapshot()
    left = {key for key in sorted(set(rows.keys)) if rng.random() < 0.5}

    halves = _restored(make, state, left.__contains__), _restored(make, state, lambda key: key not in left)
    merged = make()
    for half in rng.sample(halves, 2):
        merged.restore(half.snapshot())
    _same(expected[cut:], _scores(merged, tail), f"split and merged at {cut}")

    own = [i for i, key in enumerate(tail.keys) if key in left]
    other = [i for i, key in enumerate(tail.keys) if key not in left]
    child = _scores(halves[0], tail)
    _same(expected[cut:][own], child[own], "a child's own keys")
    _same(_scores(make(), tail)[other], child[other], "keys that were not kept")


def restoring_keeps_other_keys(make: Make, rows: Rows, rng: random.Random) -> None:
    """`restore` adds keys: those that are not in the snapshot keep their state."""
    expected = _scores(make(), rows)
    cut = rng.randint(0, len(rows.keys))
    tail = rows.part(slice(cut, None))
    detector = make()
    detector.process_many(*rows.part(slice(cut)))
    stranger = make()
    stranger.process_many(["\0stranger"] * len(rows.keys), rows.X)
    detector.restore(stranger.snapshot())
    detector.restore(make().snapshot())
    _same(expected[cut:], _scores(detector, tail), "after another key was restored")


def forgotten_keys_start_unseen(make: Make, rows: Rows, rng: random.Random) -> None:
    """If the detector is `Forgetting`, a forgotten key starts as unseen, however rows are split into calls."""
    if not isinstance(make(), Forgetting) or not rows.keys:
        return
    cut, key = rng.randint(0, len(rows.keys)), rng.choice(rows.keys)
    later = [at for at in range(cut, len(rows.keys)) if rows.keys[at] == key]
    expected = _scores(make(), rows)
    expected[later] = _scores(make(), rows.part(later))
    head, tail = rows.part(slice(cut)), rows.part(slice(cut, None))

    detector = make()
    first = _scores(detector, head)
    _forgetting(detector).forget_keys([key, "\0never seen"])
    _same(expected, np.concatenate([first, _scores(detector, tail)]), f"{key!r} forgotten at {cut}")

    numbers = {other: number for number, other in enumerate(dict.fromkeys(rows.keys))}
    each = np.array([numbers[other] for other in rows.keys], dtype=np.int64)
    each[later] = len(numbers)
    keys, owner = Numbered(rows.keys, each, numbers, {len(numbers): key}), make()
    _same(expected, owner.process_many(keys, rows.X), f"{key!r} renewed at {cut}, in one call")
    left = dict.fromkeys([] if later else [len(numbers)], key)
    _hold(keys.renewed == left, "a number whose first row was processed must be removed from `renewed`")


def _forgetting(detector: Detector) -> Forgetting:
    if not isinstance(detector, Forgetting):
        raise TypeError(f"{type(detector).__name__} does not implement forget_keys")
    return detector


def constant_series_score_zero(make: Make, rows: Rows, rng: random.Random) -> None:
    """A constant series is never anomalous."""
    for i in rng.sample(range(len(rows.keys)), min(3, len(rows.keys))):
        constant = Rows(["constant"] * 60, np.repeat(rows.X[i : i + 1], 60, axis=0))
        scores = _scores(make(), constant)
        _hold(not scores.any(), f"a constant series of {rows.X[i]} scores {scores.max()}")


def inputs_are_not_shared(make: Make, rows: Rows, rng: random.Random) -> None:
    """Inputs are not modified, may be read-only or of any layout, and may be changed after the call."""
    expected = _scores(make(), rows)
    frozen = np.asfortranarray(rows.X)
    frozen.flags.writeable = False
    _same(expected, make().process_many(tuple(rows.keys), frozen), "read-only, in Fortran order")

    cut = rng.randint(0, len(rows.keys))
    detector = make()
    keys, X = rows.part(slice(cut))
    scores = detector.process_many(keys, X)
    _same(rows.X[:cut].ravel(), X.ravel(), "the given rows")
    _hold(keys == rows.keys[:cut], "the given keys were modified")
    X[:] = 7.0
    keys[:] = ["changed"] * cut
    scores[:] = 7.0
    _same(
        expected[cut:], _scores(detector, rows.part(slice(cut, None))), "after the caller reused its arrays"
    )


def memory_is_bounded(make: Make, rows: Rows, rng: random.Random) -> None:
    """The stored state of a key does not grow with the number of its rows, except for counters."""
    if not rows.keys:
        return
    detector, sizes = make(), []
    for _ in range(3):
        for again in range(-(-300 // len(rows.keys))):
            detector.process_many(rows.keys, rows.X + again)
        sizes.append(len(detector.snapshot()))
    _hold(sizes[2] <= 1.1 * sizes[1] + 1024, f"a snapshot grows: {sizes} bytes after 300, 600 and 900 rows")


def scale_does_not_matter(make: Make, rows: Rows, rng: random.Random) -> None:
    """Within the magnitudes of its attribute `scale_free`, a detector scores the same in any unit, up to rounding."""
    limits = getattr(make(), "scale_free", None)
    if not limits:
        return
    plain = np.where(np.abs(rows.X) < limits[1], rows.X, np.nan)
    plain[np.abs(plain) < limits[0]] = 0.0
    factor = 2.0 ** rng.randint(-20, 20)
    expected, got = make().process_many(rows.keys, plain), make().process_many(rows.keys, plain * factor)
    _hold(bool(np.allclose(expected, got, rtol=1e-6, atol=1e-9)), f"times {factor}: {expected} becomes {got}")


LAWS: tuple[Law, ...] = (
    memory_is_bounded,
    scale_does_not_matter,
    scores_are_finite,
    batches_equal_single_rows,
    splits_do_not_matter,
    keys_are_independent,
    runs_are_repeatable,
    snapshots_are_exact,
    splitting_keys_is_lossless,
    restoring_keeps_other_keys,
    forgotten_keys_start_unseen,
    constant_series_score_zero,
    inputs_are_not_shared,
)


def _hold(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _same(expected: FloatVector, got: FloatVector, where: str) -> None:
    if expected.shape != got.shape:
        raise AssertionError(f"{where}: {len(got)} scores instead of {len(expected)}")
    if expected.tobytes() != got.tobytes():
        differ = [i for i, (a, b) in enumerate(zip(expected, got, strict=True)) if a.tobytes() != b.tobytes()]
        raise AssertionError(f"{where}: differs at rows {differ}:\n{expected}\n{got}")


def _scores(detector: Detector, rows: Rows) -> FloatVector:
    return detector.process_many(rows.keys, rows.X)


def _restored(make: Make, state: bytes, keep: Callable[[str], bool] | None = None) -> Detector:
    detector = make()
    if keep is None:
        detector.restore(state)
    else:
        detector.restore(state, keep)
    return detector


def _parts(rows: Rows, cuts: Sequence[int]) -> Iterator[Rows]:
    for begin, end in zip([0, *cuts], [*cuts, len(rows.keys)], strict=True):
        yield rows.part(slice(begin, end))


def _in_parts(detector: Detector, parts: Iterator[Rows]) -> FloatVector:
    return np.concatenate([_scores(detector, part) for part in parts])


def _interleaved(keys: Sequence[str], rng: random.Random) -> list[int]:
    """Return a random order of the rows that keeps the order within each key."""
    waiting: dict[str, list[int]] = {}
    for i, key in enumerate(keys):
        waiting.setdefault(key, []).append(i)
    shuffled = list(keys)
    rng.shuffle(shuffled)
    queues = {key: iter(rows) for key, rows in waiting.items()}
    return [next(queues[key]) for key in shuffled]
