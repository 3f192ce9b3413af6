"""How a scan was made: what somebody needs to judge it, or to do it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SourceDigest:
    """What a source held: its name, kind and bytes as in ScannedGuest, and the blake3 of its file in hex.

    None for live memory, which changes: nobody could compare it.
    """

    name: str
    kind: str
    bytes: int
    digest: str | None


@dataclass(frozen=True, slots=True)
class Provenance:
    """Which command ran, when and where.

    `command` is the command line as typed in a shell, `started` when the scan began (ISO 8601, UTC), `seconds` how long
    it took, `page_size` the host's own in bytes.
    """

    command: str
    version: str
    started: str
    seconds: float
    kernel: str
    cpu: str
    page_size: int
    sources: Sequence[SourceDigest]
