"""Other processes: Python code run on its own, and what C programs are built with."""

import os
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[1]
CORE = ROOT / "src" / "dedupcore"
NONE: Mapping[str, str] = {}


def under_sanitizer() -> bool:
    """Whether the engine was built with AddressSanitizer, which needs memory of its own and more time."""
    return "libasan" in os.environ.get("LD_PRELOAD", "")


def run_python(
    code: str,
    *arguments: object,
    options: Sequence[str] = (),
    timeout: float = 120,
    environment: Mapping[str, str] = NONE,
) -> "subprocess.CompletedProcess[str]":
    """Run code in a new interpreter, which sees what is installed and not this checkout."""
    command = [sys.executable, "-P", *options, "-c", textwrap.dedent(code), *map(str, arguments)]
    return run(command, timeout=timeout, environment=environment)


def run(
    command: Sequence[str], *, timeout: float = 120, environment: Mapping[str, str] = NONE
) -> "subprocess.CompletedProcess[str]":
    """Run a command with this environment and more."""
    return subprocess.run(
        command, capture_output=True, text=True, timeout=timeout, env={**os.environ, **environment}, check=False
    )


def succeed(command: Sequence[str], environment: Mapping[str, str] = NONE) -> str:
    """Run a command that must succeed; returns what it printed."""
    done = run(command, environment=environment)
    assert done.returncode == 0, f"{shlex.join(command)}\nexit {done.returncode}\n{done.stdout}{done.stderr}"
    return done.stdout


def module_flags(flag: str) -> list[str]:
    """What `python -m dedupcore` says is needed to build against it."""
    return shlex.split(succeed([sys.executable, "-P", "-m", "dedupcore", flag]))


def sanitizer_flags() -> list[str]:
    """For programs linked with a library that was built with the sanitizers."""
    return ["-fsanitize=address,undefined"] if under_sanitizer() else []


def assert_fails(done: "subprocess.CompletedProcess[str]", code: int, *parts: str) -> None:
    """The command has failed as all must: with this code, one line that holds these parts, and no output."""
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1, done.stderr
    assert done.stderr.startswith("pagedup: ")
    for part in parts:
        assert part in done.stderr
    assert done.returncode == code
