"""Fixtures of `stream_app.testing`, the profiles of hypothesis, and one loader of botocore's service models."""

import os
from functools import cache

import botocore.session
from hypothesis import HealthCheck, settings

from stream_app.testing import aws, stream

__all__ = ["aws", "stream"]

# A boto3 session parses the JSON of each service that it is asked for. Hundreds of tests make a session of their own;
# with one loader a process each file is parsed once.
botocore.session.create_loader = cache(botocore.session.create_loader)

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
