"""What relocation changes in real Windows DLLs, and what two guests can still share of them.

    python -m benchmarks.relocation

Downloads the wheels of numpy, lxml, pywin32 and PyQt5-Qt5 for 32-bit and 64-bit Windows to build/wheels. Printed are
tables in Markdown: of the pages of each section those that carry fixups, beside what was measured earlier on such
wheels (of other versions; the header's page, whose ImageBase the loader moves, counted as unchanged then); and of the
pages that are not zero those that have equal bytes in two guests: both with every image at its preferred base, and each
with bases of its own.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.wheels import PINNED, wheels
from pagedup import find_duplicates
from pagedup.guests.images import Image, load_tree, relocation_table

if TYPE_CHECKING:
    from numpy.typing import NDArray

_EARLIER = {  # percent of the pages; 241 files
    "x86": {".text": 96.9, ".rdata": 24.6, ".data": 43.1, "all": 66.2},
    "x86-64": {".text": 0.4, ".rdata": 19.1, ".data": 62.9, "all": 6.9},
}
_SLOT = 1 << 16  # bytes
_LOWEST = {"x86": 0x50000000, "x86-64": 0x7FF000000000}  # where Windows has DLLs, about


def relocation(images: Sequence[Image]) -> str:
    """Pages with fixups and with import addresses, by machine and section."""
    lines = [
        "| machine | section | pages | with fixups | measured earlier | with imports |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in relocation_table(images):
        share = f"{100 * row.fixup_pages / row.pages:.1f} %" if row.pages else "-"
        earlier = _EARLIER.get(row.machine, {}).get(row.section)
        told = "" if earlier is None else f"{earlier} %"
        lines.append(f"| {row.machine} | {row.section} | {row.pages:,} | {share} | {told} | {row.import_pages:,} |")
    return "\n".join(lines)


def shared(images: Sequence[Image], seed: int) -> str:
    """Pages of two guests that are equal, at equal and at different bases; import tables as the files have them."""
    lines = [
        "| machine | images | pages | non-zero | both at preferred bases | each at bases of its own |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for machine in sorted({image.machine for image in images}):
        same = [image for image in images if image.machine == machine]
        first = memory(same, None)
        second = memory(same, np.random.default_rng(seed))
        third = memory(same, np.random.default_rng(seed + 1))
        used = int(first.any(1).sum())
        equal, different = (100 * across(a, b) / used for a, b in ((first, first), (second, third)))
        lines.append(f"| {machine} | {len(same)} | {len(first):,} | {used:,} | {equal:.1f} % | {different:.1f} % |")
    return "\n".join(lines)


def memory(images: Sequence[Image], bases: np.random.Generator | None) -> NDArray[np.uint8]:
    """The pages of all images, one behind the other; each relocatable one at a base that is drawn."""
    parts = []
    for image in images:
        base = None
        if bases is not None and image.relocatable:
            base = _LOWEST[image.machine] + _SLOT * int(bases.integers(1 << 12))
        parts.append(image.pages(base))
    return np.concatenate(parts)


def across(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> int:
    """How many non-zero pages of the second guest have an equal one in the first."""
    found = find_duplicates([first, second])
    copies = found.canonical[len(first) :]
    return int((second.any(1) & (copies < len(first))).sum())


def main() -> None:
    """Run the command line."""
    about = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m benchmarks.relocation", description=about)
    parser.add_argument("--seed", type=int, default=1, help="of the bases")
    options = parser.parse_args()
    paths = wheels(*PINNED)
    started = time.perf_counter()
    images = [image for path in paths for image in load_tree(path) if image.kind == "pe"]
    loaded = time.perf_counter() - started
    started = time.perf_counter()
    size = sum(image.pages(image.preferred_base + _SLOT if image.relocatable else None).nbytes for image in images)
    moved = time.perf_counter() - started
    print(f"{len(images)} PE files; unpacked and loaded in {loaded:.1f} s; read and relocated at", end=" ")
    print(f"{size / moved / 1e9:.2f} GB/s\n")
    print(relocation(images), shared(images, options.seed), sep="\n\n")


if __name__ == "__main__":
    main()
