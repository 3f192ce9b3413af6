"""Specifications that come with pagedup, one TOML file each; every value in them has its source beside it."""

from __future__ import annotations

from pagedup.guests.own_files import own_names, read_own
from pagedup.guests.spec import GuestSpec, read_spec


def preset_names() -> list[str]:
    """What `preset` knows."""
    return own_names(__name__)


def preset(name: str) -> GuestSpec:
    """The specification of that name; SpecError, which lists them all, if there is none."""
    return read_own(__name__, name, "preset", read_spec)
