"""Specifications that come with pagedup, one TOML file each; every value in them has its source beside it."""

from __future__ import annotations

from importlib.resources import as_file, files

from pagedup.guests.spec import GuestSpec, SpecError, read_spec


def preset_names() -> list[str]:
    """What `preset` knows."""
    return sorted(
        entry.name.removesuffix(".toml") for entry in files(__name__).iterdir() if entry.name.endswith(".toml")
    )


def preset(name: str) -> GuestSpec:
    """The specification of that name; SpecError, which lists them all, if there is none."""
    known = preset_names()
    if name not in known:
        raise SpecError(f"there is no preset '{name}'; there are {', '.join(known)}")
    with as_file(files(__name__) / f"{name}.toml") as path:
        return read_spec(str(path))
