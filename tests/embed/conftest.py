"""What is built once for all tests here."""

from pathlib import Path

import pytest

from tests.embed.building import HERE, build_extension
from tests.processes import module_flags, sanitizer_flags, succeed


@pytest.fixture(scope="session")
def downstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an extension that cimports dedupcore."""
    folder = tmp_path_factory.mktemp("cython")
    build_extension("downstream.pyx", folder)
    return folder


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A C program that is linked with the static library."""
    path = tmp_path_factory.mktemp("c") / "embedder"
    flags = [*module_flags("--cflags"), str(HERE / "embedder.c"), *module_flags("--libs")]
    succeed(["gcc", "-std=c11", "-O1", "-Wall", "-Werror", "-o", str(path), *sanitizer_flags(), *flags])
    return path
