"""A plan does not end with a record that ended its consumer."""

from __future__ import annotations

import os
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from stream_app.recovery.redrive.plan.predict import Predicted
from stream_app.recovery.redrive.plan.quarantined import predict_quarantined


def case(code: str, data: bytes) -> Any:
    stored = SimpleNamespace(code=code, reason="the process ended with exit code 0")
    return SimpleNamespace(selected=SimpleNamespace(stored=stored), draft=SimpleNamespace(data=data))


def predict(drafts: Sequence[Any]) -> list[Predicted]:
    if any(draft.data == b"poison" for draft in drafts):
        os._exit(0)
    return [Predicted("stored", draft.data.decode()) for draft in drafts]


def test_a_record_that_would_end_the_process_is_predicted_to_fail_again() -> None:
    made = [
        case("RULE_BROKEN", b"one"),
        case("PROCESS_KILLED", b"poison"),
        case("TIMED_OUT", b"repaired"),
        case("TIMED_OUT", b"poison"),
        case("RULE_BROKEN", b"two"),
    ]
    assert predict_quarantined(made, predict) == [
        Predicted("stored", "one"),
        Predicted("PROCESS_KILLED", "the process ended with exit code 0"),
        Predicted("stored", "repaired"),
        Predicted("TIMED_OUT", "the process ended with exit code 0"),
        Predicted("stored", "two"),
    ]
