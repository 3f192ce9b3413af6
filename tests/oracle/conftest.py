"""Real guests, booted once for all tests here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks import guests

SPECS = ("idle1=idle", "idle2=idle", "python1=python")


@dataclass(frozen=True)
class RealGuest:
    """A guest that is stopped, so that its memory stays as it is, with a raw dump of its RAM."""

    name: str
    pid: int
    qmp: str
    dump: Path


@pytest.fixture(scope="session")
def real_guests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[RealGuest]]:
    """Three guests of 256 MiB. They live until all tests have run, and their RAM is mergeable by KSM."""
    state = tmp_path_factory.mktemp("guests")
    guests.build(state)
    try:
        guests.up(SPECS, "256M", state)
        dumps = {path.stem: path for path in guests.dump(state / "dumps", "raw", state)}
        yield [
            RealGuest(guest["name"], guest["pid"], guest["qmp"], dumps[guest["name"]]) for guest in guests.alive(state)
        ]
    finally:
        guests.down(state)
