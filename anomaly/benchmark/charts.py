"""An HTML page of charts of series with labelled windows, scores and alerts, without scripts or libraries."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from anomaly.detector import FloatVector, Times

_WIDTH, _TOP, _LOW, _GAP = 1100, 110, 34, 8
_STYLE = (
    "body{font:14px system-ui,sans-serif;margin:24px;color:#222;background:#fff}svg{display:block}"
    "h2{font-size:14px;margin:22px 0 4px}p{margin:2px 0 6px;color:#555}li{font-size:13px;color:#333}"
    ".v{stroke:#2b6cb0;fill:none}.s{stroke:#888;fill:none}.w{fill:#f6d55c;opacity:.45}"
    ".a{stroke:#c53030;stroke-width:1.5}.t{stroke:#c53030;stroke-dasharray:3 4;opacity:.6}"
)


class Picture(NamedTuple):
    """The chart of a series of n rows; `alerts` are row indices, `windows` first and last row indices."""

    title: str
    times: Times
    values: FloatVector
    scores: FloatVector
    threshold: float
    alerts: Sequence[int]
    windows: Sequence[tuple[int, int]] = ()
    notes: Sequence[str] = ()


def page(title: str, pictures: Iterable[Picture]) -> str:
    """Render a self-contained HTML page."""
    legend = "Blue: values. Yellow: labelled windows. Grey: scores, dashed: the threshold. Red: alerts."
    parts = [f"<h1>{html.escape(title)}</h1><p>{legend}</p>", *map(_section, pictures)]
    head = f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(title)}</title>"
    return f"{head}<style>{_STYLE}</style><body>{''.join(parts)}</body></html>\n"


def _section(picture: Picture) -> str:
    n = len(picture.values)
    if not n:
        return f"<h2>{html.escape(picture.title)}</h2><p>no rows</p>"
    first, last = (np.datetime_as_string(picture.times[at], unit="m") for at in (0, -1))
    facts = f"{n} rows, {first} to {last}, {len(picture.alerts)} alerts, {len(picture.windows)} windows"
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in picture.notes)
    return f"<h2>{html.escape(picture.title)}</h2><p>{facts}</p>{_drawing(picture)}<ul>{notes}</ul>"


def _drawing(picture: Picture) -> str:
    n, bottom = len(picture.values), _TOP + _GAP + _LOW
    x = _WIDTH / n
    windows = "".join(
        f'<rect class=w x="{a * x:.1f}" width="{max((b - a + 1) * x, 1):.1f}" y="0" height="{bottom}"/>'
        for a, b in picture.windows
    )
    alerts = "".join(f'<path class=a d="M{at * x:.1f} 0V{bottom}"/>' for at in picture.alerts)
    # Square roots, so that small scores are visible beside large ones; the threshold is at half height.
    heights = np.sqrt(np.minimum(picture.scores / picture.threshold, 4.0))
    scores, line = _path(heights, 0.0, 2.0, bottom - _LOW, _LOW), bottom - _LOW / 2
    low, high = _range(picture.values)
    return (
        f'<svg viewBox="0 0 {_WIDTH} {bottom}" width="100%" role="img">{windows}{alerts}'
        f'<path class=v d="{_path(picture.values, low, high, 0, _TOP)}"/><path class=s d="{scores}"/>'
        f'<path class=t d="M0 {line:.1f}H{_WIDTH}"/></svg>'
    )


def _range(values: FloatVector) -> tuple[float, float]:
    known = values[np.isfinite(values)]
    low, high = (float(known.min()), float(known.max())) if len(known) else (0.0, 1.0)
    return low, high if high > low else low + 1.0


def _path(values: FloatVector, low: float, high: float, top: float, height: float) -> str:
    """Draw the lowest and highest value of each pixel column, so that no spike is lost; gaps remain gaps."""
    n = len(values)
    columns = min(n, _WIDTH)
    points: list[str] = []
    pen = "M"
    for begin, end in zip(
        *(np.linspace(0, n, columns + 1).astype(int)[cut] for cut in (slice(-1), slice(1, None))), strict=True
    ):
        part = values[begin:end]
        part = part[np.isfinite(part)]
        if not len(part):
            pen = "M"
            continue
        for value in dict.fromkeys((float(part.min()), float(part.max()))):
            y = top + height * (1.0 - (value - low) / (high - low))
            points.append(f"{pen}{begin * _WIDTH / n:.1f} {y:.1f}")
            pen = "L"
    return "".join(points)
