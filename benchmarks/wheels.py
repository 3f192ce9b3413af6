"""Windows wheels of PyPI: real DLLs, and the same ones for everybody."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PLATFORMS = ("win32", "win_amd64")
PINNED = {"numpy": "2.4.6", "lxml": "6.1.3", "pywin32": "312", "PyQt5-Qt5": "5.15.2"}
CACHE = Path(__file__).parents[1] / "build" / "wheels"


def wheels(*projects: str, folder: Path = CACHE) -> list[Path]:
    """The wheels of these projects for each platform, downloaded unless they are there.

    Raises CalledProcessError if the package index cannot be reached.
    """
    found: list[Path] = []
    for platform in PLATFORMS:
        for project in projects:
            name = f"{project.replace('-', '_')}-{PINNED[project]}-*{platform}.whl"
            if not list(folder.glob(name)):
                _download(f"{project}=={PINNED[project]}", platform, folder)
            found += folder.glob(name)
    return found


def _download(requirement: str, platform: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "--quiet", "--no-deps"]
    command += ["--only-binary", ":all:", "--platform", platform, "--python-version", "3.11"]
    subprocess.run([*command, "--dest", str(folder), requirement], check=True)
