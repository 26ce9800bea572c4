"""The benchmark's scorer against a row-by-row reference implementation and against hand-computed scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from anomaly.benchmark import scorer

Windows = list[tuple[int, int]]


@st.composite
def labelled(draw: st.DrawFn) -> tuple[int, Windows, list[float]]:
    rows = draw(st.integers(1, 60))
    cuts = sorted(draw(st.sets(st.integers(0, rows - 1), max_size=8)))
    windows = list(zip(cuts[::2], cuts[1::2], strict=False))
    scores = st.sampled_from([0.0, 0.25, 0.5, 1.0, math.nan]) | st.floats(0, 1)
    return rows, windows, draw(st.lists(scores, min_size=rows, max_size=rows))


def sigmoid(place: float) -> float:
    return -1.0 if place > 3.0 else 2.0 / (1.0 + math.exp(5.0 * place)) - 1.0


def by_definition(rows: int, windows: Windows, scores: list[float], threshold: float, profile: str) -> float:
    """Return the score of a series: each false alert is weighted, and each window counts its best alert."""
    rules = scorer.PROFILES[profile]
    begin = math.ceil(min(math.floor(0.15 * rows), 750.0))
    alerts = [row for row in range(begin, rows) if scores[row] >= threshold]
    earned = 0.0
    for first, last in windows:
        hits = [row for row in alerts if first <= row <= last]
        length = last - first + 1
        worth = [rules.hit * sigmoid(-(last - row + 1) / length) / sigmoid(-1.0) for row in hits]
        if last >= begin:
            earned += max(worth, default=-rules.miss)
    for row in alerts:
        if any(first <= row <= last for first, last in windows):
            continue
        before = [(first, last) for first, last in windows if last < row]
        if not before:
            earned -= rules.false_alert
        else:
            first, last = before[-1]
            earned += rules.false_alert * (sigmoid((row - last) / (last - first)) if last > first else -1.0)
    return earned


@given(
    corpus=st.lists(labelled(), min_size=1, max_size=4), threshold=st.sampled_from([0.0, 0.25, 0.7, 1.0, 2.0])
)
@pytest.mark.parametrize("profile", scorer.PROFILES)
def test_the_score_equals_the_reference_implementation(
    profile: str, corpus: list[tuple[int, Windows, list[float]]], threshold: float
) -> None:
    truths = [scorer.truth(rows, windows) for rows, windows, _ in corpus]
    scores = [np.array(series) for _, _, series in corpus]
    result = scorer.at(truths, scores, profile, threshold)
    number = sum(len(windows) for _, windows, _ in corpus)
    if not number:
        assert math.isnan(result.score)
        return
    earned = sum(by_definition(*series, threshold, profile) for series in corpus)
    rules = scorer.PROFILES[profile]
    nothing = -rules.miss * number
    expected = 100.0 * (earned - nothing) / (rules.hit * number - nothing)
    assert result.score == pytest.approx(expected, abs=1e-9)
    best = scorer.best(truths, scores, profile)
    assert best.score >= result.score
    assert scorer.at(truths, scores, profile, best.threshold).score == best.score


def test_no_alerts_score_0_and_the_first_row_of_each_window_100() -> None:
    windows = [(40, 49), (80, 89)]
    truths = [scorer.truth(100, windows)]
    silent, perfect = np.zeros(100), np.zeros(100)
    perfect[[40, 80]] = 1.0
    for profile in scorer.PROFILES:
        assert scorer.at(truths, [silent], profile, 0.5).score == 0.0
        assert scorer.at(truths, [perfect], profile, 0.5).score == pytest.approx(100.0)
    found = scorer.at(truths, [perfect], "standard", 0.5)
    assert (found.hits, found.misses, found.false_alerts) == (2, 0, 0)


def test_late_detections_score_less_and_false_alerts_cost() -> None:
    truths = [scorer.truth(100, [(40, 49)])]

    def score(*rows: int) -> float:
        series = np.zeros(100)
        series[list(rows)] = 1.0
        return scorer.at(truths, [series], "standard", 0.5).score

    assert score(40) > score(45) > score(49) > 50.0
    assert score(40, 30) == pytest.approx(score(40) - 100 * 0.11 / 2)
    assert score(40, 51) > score(40, 90) == pytest.approx(score(40) - 100 * 0.11 / 2)
    assert score(40, 3) == score(40)  # probation


@pytest.mark.parametrize(("rows", "expected"), [(10, 1), (100, 15), (5000, 750), (20_000, 750), (4, 0)])
def test_the_probation_is_15_percent_of_at_most_5000_rows(rows: int, expected: int) -> None:
    assert scorer.probation(rows) == expected


def test_scores_of_the_wrong_length_are_rejected() -> None:
    with pytest.raises(ValueError, match="3 scores for a series of 4 rows"):
        scorer.at([scorer.truth(4, [])], [np.zeros(3)], "standard", 1.0)
