"""What a run of the measurements was asked for, and the real RAM that several of them share."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import native, realram
from benchmarks.realram import Composition, RealMemory
from pagedup import find_duplicates


@dataclass
class Settings:
    """Options, and memory that is loaded at its first use.

    Attributes:
        rounds: at most so many a comparison.
        dumps: folder of raw dumps; None: boot guests.
        huge: hold memory in huge pages.
        quick: everything a sixteenth of its size, to try the measurements themselves; the floors are for the full size.
        described: what memory was measured, for the report.
    """

    rounds: int = 15
    dumps: Path | None = None
    huge: bool = True
    quick: bool = False
    described: dict[str, str] = field(default_factory=dict)
    _paths: list[Path] | str | None = None  # or why there are none
    _real: tuple[RealMemory, Composition] | None = None

    def scaled(self, n: int) -> int:
        """This size, or what `quick` makes of it."""
        return n // 16 if self.quick else n

    def real(self) -> tuple[RealMemory, Composition]:
        """Real RAM; NoRealMemory if there is none or too little."""
        if self._real is None:
            self.say("loading the RAM of real guests")
            real = realram.load(self.dump_paths(), huge=self.huge)
            composition = Composition.of(find_duplicates(real.guests))
            self._real = real, composition
            text = f"{real.memory.nbytes / 1e9:.2f} GB of {len(real.guests)} guests; {composition}"
            self.described["real RAM"] = text
            self.say(text)
        return self._real

    def real_anew(self) -> realram.Bytes:
        """Real RAM in memory of its own, to be changed; a single guest's in a quick run. NoRealMemory as for `real`."""
        paths = self.dump_paths()
        return realram.load(paths[:1] if self.quick else paths, huge=self.huge).memory

    def dump_paths(self) -> list[Path]:
        """The files of the real RAM; NoRealMemory, each time for the same reason, if there are none."""
        if self._paths is None:
            try:
                self._paths = self._find_dumps()
            except realram.NoRealMemory as error:
                self._paths = str(error)
        if isinstance(self._paths, str):
            raise realram.NoRealMemory(self._paths)
        return self._paths

    def _find_dumps(self) -> list[Path]:
        self.say("looking for dumps, booting guests if there are none (some minutes, once)")
        paths = realram.dumps(self.dumps)
        size = sum(path.stat().st_size for path in paths)
        if not self.quick and (size < realram.LEAST_BYTES or len(paths) < realram.LEAST_GUESTS):
            raise realram.NoRealMemory(
                f"{size / 1e9:.2f} GB of {len(paths)} guests; it takes {realram.LEAST_BYTES / 1e9:g} GB"
                f" of {realram.LEAST_GUESTS} to be representative"
            )
        return paths

    def release_real(self) -> None:
        """Free it."""
        self._real = None

    def reader(self, memory: realram.Bytes) -> str:
        """The fastest way of reading this memory."""
        reader = native.fastest_reader(memory)
        self.say(f"reading once: {reader} is fastest")
        return reader

    def say(self, text: str) -> None:
        """Progress, to stderr."""
        print(f"bench: {text}", file=sys.stderr, flush=True)
