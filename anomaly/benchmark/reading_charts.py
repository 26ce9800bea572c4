"""Draw the alerts of `NearestValue` on readings without labels.

`python -m anomaly.benchmark.reading_charts READINGS OUT.html --key KEY --features A,B`

READINGS is a Parquet or CSV table with a column for the device, one for the time and one for each feature. Its rows
are processed in order of time; the page has a chart for each feature of each device.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from anomaly.alerting import Assessment
from anomaly.benchmark.charts import Picture, page
from anomaly.nearest import NearestValue


def pictures(
    readings: pd.DataFrame, key: str, time: str, features: Sequence[str], detector: NearestValue
) -> Iterator[Picture]:
    """Yield a chart for each device and feature, with the alerts whose explanation names the feature."""
    readings = readings.sort_values([time, key], kind="stable")
    keys = readings[key].astype(str).to_numpy(object)
    times = pd.to_datetime(readings[time], utc=True).to_numpy("datetime64[s]")
    X = readings[list(features)].to_numpy(np.float64)
    assessment = detector.assess_many(keys.tolist(), X, times)
    for device in dict.fromkeys(keys.tolist()):
        rows = np.flatnonzero(keys == device)
        for number, feature in enumerate(features):
            yield _picture(f"{device}, {feature}", rows, number, X, times, assessment, detector)


def _picture(
    title: str,
    rows: np.ndarray[tuple[int], np.dtype[np.intp]],
    number: int,
    X: np.ndarray[tuple[int, int], np.dtype[np.float64]],
    times: np.ndarray[tuple[int], np.dtype[np.datetime64]],
    assessment: Assessment,
    detector: NearestValue,
) -> Picture:
    own = assessment.feature[rows] == number
    alerts = np.flatnonzero(own & (assessment.scores[rows] >= detector.threshold)).tolist()
    notes = [
        f"{np.datetime_as_string(times[rows[at]], unit='m')}: {detector.explain(assessment, int(rows[at]))}"
        for at in alerts
    ]
    scores = np.where(own, assessment.scores[rows], 0.0)
    return Picture(title, times[rows], X[rows, number], scores, detector.threshold, alerts, (), notes)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command. Exit code 2 if the table cannot be used."""
    parser = argparse.ArgumentParser(
        prog="python -m anomaly.benchmark.reading_charts", description=__doc__.partition("\n")[0]
    )
    parser.add_argument("readings", type=Path, metavar="READINGS", help="Parquet or CSV table of readings")
    parser.add_argument("out", type=Path, metavar="OUT", help="HTML page to write")
    parser.add_argument("--key", required=True, metavar="COLUMN", help="column of the device")
    parser.add_argument(
        "--time", default="time", metavar="COLUMN", help="column of the time (default: %(default)s)"
    )
    parser.add_argument(
        "--features", required=True, metavar="COLUMNS", help="feature columns, separated by commas"
    )
    parser.add_argument(
        "--rows-per-alert", type=float, metavar="ROWS", help="rows of a device per alert, approximately"
    )
    arguments = parser.parse_args(argv)
    features = arguments.features.split(",")
    rate = {} if arguments.rows_per_alert is None else {"rows_per_alert": arguments.rows_per_alert}
    try:
        read = pd.read_csv if arguments.readings.suffix == ".csv" else pd.read_parquet
        table = read(arguments.readings)
        drawn = list(pictures(table, arguments.key, arguments.time, features, NearestValue(features, **rate)))
    except (OSError, ValueError, KeyError) as error:
        sys.stderr.write(f"cannot use {arguments.readings}: {error}\n")
        return 2
    arguments.out.write_text(page(f"{arguments.readings.name}: alerts of NearestValue", drawn))
    sys.stdout.write(
        f"{sum(len(one.alerts) for one in drawn)} alerts in {len(table)} rows: {arguments.out}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
