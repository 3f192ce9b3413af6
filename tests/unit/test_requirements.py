"""PAGEDUP_REQUIRE: what a machine lacks is skipped by name, unless it is required."""

import sys
from pathlib import Path

import pytest

from tests import requirements
from tests.processes import ROOT, run

TEST = "import pytest\n@pytest.mark.valgrind\ndef test_it() -> None: pass\ndef test_other() -> None: pass\n"


def outcome(folder: Path, **environment: str) -> tuple[int, str]:
    (folder / "test_one.py").write_text(TEST)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml")]
    pytest_here = ["env", "-C", str(ROOT), sys.executable, "-m", "pytest", "-q", *options]
    done = run([*pytest_here, str(folder)], environment=environment)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture
def without_valgrind(tmp_path: Path) -> str:
    """A PATH on which nothing is but env."""
    bare = tmp_path / "bin"
    bare.mkdir()
    (bare / "env").symlink_to("/usr/bin/env")
    return str(bare)


def test_a_lack_is_skipped(tmp_path: Path, without_valgrind: str) -> None:
    status, text = outcome(tmp_path, PATH=without_valgrind, PAGEDUP_REQUIRE="")
    assert status == 0, text
    assert "1 passed, 1 skipped" in text
    assert "valgrind: not installed: valgrind, gcc" in text


@pytest.mark.parametrize("required", ["valgrind", "ksm, valgrind ,qemu"])
def test_a_lack_of_what_is_required_fails(tmp_path: Path, without_valgrind: str, required: str) -> None:
    status, text = outcome(tmp_path, PATH=without_valgrind, PAGEDUP_REQUIRE=required)
    assert status == 1, text
    assert "1 passed, 1 error" in text
    assert "valgrind: not installed: valgrind, gcc, but PAGEDUP_REQUIRE asks for it" in text


def test_another_requirement_changes_nothing(tmp_path: Path, without_valgrind: str) -> None:
    assert outcome(tmp_path, PATH=without_valgrind, PAGEDUP_REQUIRE="ksm,qemu")[0] == 0


def test_a_word_that_is_not_known_is_an_error(tmp_path: Path) -> None:
    status, text = outcome(tmp_path, PAGEDUP_REQUIRE="ksm,valgrnd")
    assert status == pytest.ExitCode.USAGE_ERROR
    assert "PAGEDUP_REQUIRE names valgrnd; known are chromium, e2fsprogs, gdb, ksm, qemu, userfaultfd, valgrind" in text


def test_every_marker_is_known_and_no_other(pytestconfig: pytest.Config) -> None:
    markers = {line.split(":")[0] for line in pytestconfig.getini("markers")}
    assert requirements.PROBES.keys() <= markers
