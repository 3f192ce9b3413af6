"""The guard's programs, built once."""

from pathlib import Path

import pytest

from tests.guard import guard


def built(name: str, folders: pytest.TempPathFactory) -> Path:
    """The program of that name with the installed library."""
    program = folders.mktemp("guard") / name
    guard.build(program)
    return program


@pytest.fixture(scope="session")
def frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """frames.c."""
    return built("frames", tmp_path_factory)


@pytest.fixture(scope="session")
def guests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """guests.c."""
    return built("guests", tmp_path_factory)


@pytest.fixture(scope="session")
def pool(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """pool.c."""
    return built("pool", tmp_path_factory)


@pytest.fixture(scope="session")
def policies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """policies.c."""
    return built("policies", tmp_path_factory)


@pytest.fixture(scope="session")
def tlb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """tlb.c."""
    return built("tlb", tmp_path_factory)
