"""The guard's programs, built once."""

from pathlib import Path

import pytest

from tests.guard import guard


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """frames.c with the installed library."""
    program = tmp_path_factory.mktemp("guard") / "frames"
    guard.build(program)
    return program


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """guests.c with the installed library."""
    program = tmp_path_factory.mktemp("guard") / "guests"
    guard.build(program)
    return program


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pool.c with the installed library."""
    program = tmp_path_factory.mktemp("guard") / "pool"
    guard.build(program)
    return program


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """policies.c with the installed library."""
    program = tmp_path_factory.mktemp("guard") / "policies"
    guard.build(program)
    return program
