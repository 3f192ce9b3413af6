"""TOML files that come with pagedup, in a package of their own, by their names."""

from __future__ import annotations

from collections.abc import Callable
from importlib.resources import as_file, files
from typing import TypeVar

from pagedup.guests.spec import SpecError

_Read = TypeVar("_Read")


def own_names(package: str) -> list[str]:
    """The names of the package's files, without their suffix, in order."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in files(package).iterdir() if entry.name.endswith(".toml")
    )


def read_own(package: str, name: str, what: str, read: Callable[[str], _Read]) -> _Read:
    """The file of that name, read; SpecError, which says what there is none of and lists them all, if there is none."""
    known = own_names(package)
    if name not in known:
        raise SpecError(f"there is no {what} '{name}'; there are {', '.join(known)}")
    with as_file(files(package) / f"{name}.toml") as path:
        return read(str(path))
