"""`python -m anomaly.benchmark` on a small generated corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from anomaly.benchmark import __main__ as benchmark
from anomaly.benchmark import corpus, scorer
from anomaly.benchmark import reading_charts as pictures_of_readings
from anomaly.benchmark.charts import Picture, page
from anomaly.benchmark.detectors import OURS, RIVERS, UnknownDetectorError, named
from tests.distributions import install

ROWS = 1500


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three series, the first two with a spike each, and a labelled series that is missing."""
    rng = np.random.default_rng(1)
    labels: dict[str, Any] = {"gone/missing.csv": []}
    for number, name in enumerate(("a/one.csv", "a/two.csv", "b/three.csv")):
        values = rng.normal(50.0, 2.0, ROWS).round(1)
        times = pd.date_range("2024-01-01", periods=ROWS, freq="5min")
        labels[name] = []
        if number < 2:
            values[1000:1003] = 120.0 + 10 * np.arange(3)
            labels[name] = [[f"{times[980]}.000000", f"{times[1080]}.000000"]]
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"timestamp": times, "value": values}).to_csv(path, index=False)
    (tmp_path / "labels").mkdir()
    (tmp_path / corpus.LABELS).write_text(json.dumps(labels))
    return tmp_path


def report(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert benchmark.main([*arguments, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_written_scores_reproduce_the_reported_figures(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    found = report(capsys, str(folder), "--detector", "NearestValue", "--scores", str(out), "--halves")
    assert (found["series"], found["records"], found["windows"]) == (3, 3 * ROWS, 2)
    figures = found["detectors"]["NearestValue"]
    threshold = figures["shipped"]["standard"]["threshold"]
    series = corpus.read(folder)
    written = [pd.read_csv(out / one.name) for one in series]
    scores = [table["anomaly_score"].to_numpy() for table in written]
    again = scorer.at([one.truth for one in series], scores, "standard", threshold)
    assert again._asdict() == figures["shipped"]["standard"]
    assert figures["best"]["standard"]["score"] >= again.score > 60.0
    assert [(t["anomaly_score"] >= threshold).tolist() for t in written] == [
        t["alert"].astype(bool).tolist() for t in written
    ]
    assert written[0]["alert"][980:1081].any()
    assert figures["halves"]["first"]["shipped"]["standard"]["misses"] == 0
    picture = (out / "index.html").read_text()
    assert picture.count("<svg") == 3
    assert "the nearest value seen is" in picture


def test_series_are_passed_in_batches_without_later_rows(folder: Path) -> None:
    one = corpus.read(folder)[0]
    cut = one._replace(X=one.X[:700], times=one.times[:700], windows=())
    whole, part = (
        benchmark.run("NearestValue", OURS["NearestValue"], [series]).scores[0] for series in (one, cut)
    )
    assert whole[:700].tolist() == part.tolist()


def test_the_table_compares_shipped_and_best_results_with_rivers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert benchmark.main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines[1::2]]
    assert names == [*OURS, *RIVERS]
    assert all("best threshold" in line for line in lines[2::2])
    assert len({len(line) for line in lines[1::2]}) == 1


def test_compiled_trees_score_the_same_as_rivers(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    both = ("HalfSpaceTrees", "river.HalfSpaceTrees")
    found = report(capsys, str(folder), *(f"--detector={name}" for name in both))
    ours, theirs = (found["detectors"][name]["shipped"] for name in both)
    assert ours == theirs


def test_a_detector_can_be_given_as_an_import_path(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = report(capsys, str(folder), "--detector", "anomaly.river:StandardDeviation")
    assert found["detectors"]["anomaly.river:StandardDeviation"]["shipped"]["standard"]["threshold"] == 6.0


def test_a_folder_without_labels_is_rejected(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert benchmark.main([str(tmp_path)]) == 2
    message = capsys.readouterr().err
    assert message.startswith("cannot read ")
    assert "combined_windows.json" in message


def test_an_unknown_detector_is_rejected(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("Oracle", "anomaly.river:Oracle", "no.such:thing"):
        assert benchmark.main([str(folder), "--detector", name]) == 2
        assert f"unknown detector '{name}' (expected NearestValue" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("timestamp,value\n2024-01-01,1\n2024-01-02,x\n", "cannot read"),
        ("timestamp,value\n2024-01-01,1\n", "has no row"),
    ],
)
def test_an_invalid_series_is_reported_by_name(folder: Path, text: str, message: str) -> None:
    (folder / "data" / "a" / "one.csv").write_text(text)
    with pytest.raises(corpus.CorpusError, match=message) as raised:
        corpus.read(folder)
    assert "one.csv" in str(raised.value)


def test_a_corpus_without_any_of_its_series_is_rejected(folder: Path) -> None:
    (folder / corpus.LABELS).write_text('{"x/y.csv": []}')
    with pytest.raises(corpus.CorpusError, match="none of the 1 series"):
        corpus.read(folder)


def test_a_plot_keeps_spikes_and_gaps() -> None:
    values = np.zeros(50_000)
    values[31_234] = 9.0
    values[40_000:42_000] = np.nan
    times = np.datetime64("2024-01-01", "m") + np.arange(len(values))
    drawn = page("<title>", [Picture("a & b", times, values, np.zeros(50_000), 1.0, [31_234], [(1, 9)])])
    assert "&lt;title&gt;" in drawn
    assert "a &amp; b" in drawn
    line = drawn.split('class=v d="')[1].split('"')[0]
    assert " 0.0" in line  # the top
    assert line.count("M") == 2
    assert "no rows" in page("", [Picture("empty", times[:0], values[:0], values[:0], 1.0, [])])


def readings(folder: Path) -> Path:
    rng = np.random.default_rng(2)
    X = rng.normal(50.0, 2.0, (800, 2)).round(1)
    X[700, 1] = 400.0
    times = pd.date_range("2024-01-01", periods=400, freq="h", tz="UTC").repeat(2)
    table = pd.DataFrame({"time": times, "station": ["one", "other"] * 400, "pm25": X[:, 0], "o3": X[:, 1]})
    path = folder / "readings.parquet"
    table.to_parquet(path)
    return path


def test_readings_are_plotted_with_their_anomalies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "page.html"
    arguments = [str(readings(tmp_path)), str(out), "--key", "station", "--features", "pm25,o3"]
    assert pictures_of_readings.main(arguments) == 0
    assert "alerts in 800 rows" in capsys.readouterr().out
    text = out.read_text()
    assert text.count("<svg") == 4
    of_o3 = text.split("<h2>one, o3</h2>")[1].split("<h2>")[0]
    assert "o3 is 400; the nearest value seen is" in of_o3
    assert "o3 is 400" not in text.split("<h2>one, pm25</h2>")[1].split("<h2>")[0]


@pytest.mark.parametrize(
    "arguments", [("--key", "no", "--features", "o3"), ("--key", "station", "--features", "no")]
)
def test_readings_without_the_required_columns_are_rejected(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...]
) -> None:
    assert pictures_of_readings.main([str(readings(tmp_path)), str(tmp_path / "o.html"), *arguments]) == 2
    assert "cannot use" in capsys.readouterr().err


def test_an_installed_detector_can_be_selected_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "ours", "[stream_app.detectors]\nMine = anomaly.nearest:NearestValue\n")
    assert named("Mine") is OURS["NearestValue"]
    with pytest.raises(UnknownDetectorError, match=r"expected NearestValue, .*, Mine or"):
        named("Other")
    install(tmp_path, monkeypatch, "theirs", "[stream_app.detectors]\nMine = no_such:X\nBad = no_such:X\n")
    with pytest.raises(
        UnknownDetectorError, match=r"'Mine' is declared twice: .* of (ours|theirs) and .* of (ours|theirs)"
    ):
        named("Mine")
    with pytest.raises(UnknownDetectorError, match=r"'Bad' \(no_such:X of theirs\) cannot be loaded"):
        named("Bad")
