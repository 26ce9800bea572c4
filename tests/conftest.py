"""The fixtures that users get, used by our own suite too; and how hard hypothesis tries."""

import os

from hypothesis import HealthCheck, settings

from stream_app.testing import aws, stream

__all__ = ["aws", "stream"]

# The same examples on every run. HYPOTHESIS_PROFILE=explore looks for new ones, and takes its time.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", parent=settings.get_profile("suite"), derandomize=False, max_examples=2_000
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "suite"))
