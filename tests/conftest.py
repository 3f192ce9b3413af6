"""Markers for what only some machines have, and what all tests share."""

import os
from collections.abc import Iterator
from functools import cache

import hypothesis
import pytest

import dedupcore
from tests import requirements

hypothesis.settings.register_profile(
    "pagedup",
    deadline=None,  # machines are noisy
    suppress_health_check=[hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.data_too_large],
    print_blob=True,
)
hypothesis.settings.load_profile("pagedup")


@cache
def missing(name: str) -> str:
    return requirements.PROBES[name]()


def pytest_configure(config: pytest.Config) -> None:
    try:
        requirements.required(os.environ.get("PAGEDUP_REQUIRE", ""))
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None


def pytest_runtest_setup(item: pytest.Item) -> None:
    for name in requirements.PROBES:
        if item.get_closest_marker(name) and missing(name):
            reason = f"{name}: {missing(name)}"
            if name in requirements.required(os.environ.get("PAGEDUP_REQUIRE", "")):
                pytest.fail(f"{reason}, but PAGEDUP_REQUIRE asks for it", pytrace=False)
            pytest.skip(reason)


@pytest.fixture
def seeded() -> Iterator[None]:
    """Work counters that repeat to the last digit."""
    dedupcore.set_key(1)
    yield
    dedupcore.set_key(None)
