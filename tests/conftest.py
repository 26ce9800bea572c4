"""Fixtures of `stream_app.testing`, tiers, hypothesis profiles, and one loader of botocore's service models."""

import os
import random
import time
from functools import cache
from pathlib import Path

import botocore.session
import pytest
from hypothesis import HealthCheck, settings

from stream_app.testing import aws, stream
from tests.tiers import tier_of

__all__ = ["aws", "stream"]
TESTS = Path(__file__).parent

# A boto3 session parses the JSON model of each service it is used for. Hundreds of tests create their own session;
# with one loader per process, each file is parsed once.
botocore.session.create_loader = cache(botocore.session.create_loader)

# The same examples on every run. HYPOTHESIS_PROFILE=explore, as in `make explore`, uses new ones and prints how to
# reproduce a failure.
settings.register_profile(
    "suite",
    derandomize=True,
    deadline=None,
    database=None,
    max_examples=100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile(
    "explore", parent=settings.get_profile("suite"), derandomize=False, max_examples=2_000, print_blob=True
)
PROFILE = os.environ.get("HYPOTHESIS_PROFILE", "suite")
settings.load_profile(PROFILE)
EXPLORE_UNTIL = time.monotonic() + 60 * float(os.environ.get("EXPLORE_MINUTES", "inf"))


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark each test with its tier, which `-m` selects."""
    for item in items:
        folder = item.path.relative_to(TESTS).parts[0]
        try:
            tier = tier_of(folder, {mark.name for mark in item.iter_markers()})
        except ValueError as error:
            raise pytest.UsageError(f"{item.nodeid}: {error}") from error
        if item.get_closest_marker(tier) is None:
            item.add_marker(tier)
    if PROFILE == "explore":
        # Exploring is limited in time, so the order differs per run. The workers of a run must agree on it.
        random.Random(os.environ.get("PYTEST_XDIST_TESTRUNUID")).shuffle(items)


def pytest_runtest_setup() -> None:
    """Skip the remaining tests when the time to explore is over."""
    if time.monotonic() > EXPLORE_UNTIL:
        pytest.skip("the time to explore is over")
