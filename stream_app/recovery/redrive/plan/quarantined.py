"""Prediction for failures that killed their process: each is first tried in a disposable fork."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from stream_app.model.record import Code
from stream_app.processes import disposable_fork
from stream_app.recovery.redrive.plan.cases import Case
from stream_app.recovery.redrive.plan.predict import Predicted
from stream_app.recovery.redrive.targets.target import Draft

_CODES = frozenset({Code.PROCESS_KILLED.value, Code.TIMED_OUT.value})
_LIMIT = disposable_fork.Limit(busy=30.0, waiting=120.0)

Predict = Callable[[Sequence[Draft]], list[Predicted]]


def predict_quarantined(cases: Sequence[Case], predict: Predict) -> list[Predicted]:
    """Predict the result of each case; one that would still kill its process is predicted to fail as before."""
    fatal = {
        at: Predicted(case.selected.stored.code, case.selected.stored.reason)
        for at, case in enumerate(cases)
        if case.selected.stored.code in _CODES and not _survives(case.draft, predict)
    }
    others = iter(predict([case.draft for at, case in enumerate(cases) if at not in fatal]))
    return [fatal[at] if at in fatal else next(others) for at in range(len(cases))]


def _survives(draft: Draft, predict: Predict) -> bool:
    def work(_tell: disposable_fork.Report) -> None:
        predict([draft])

    return disposable_fork.run(work, lambda _report: _LIMIT).finished
