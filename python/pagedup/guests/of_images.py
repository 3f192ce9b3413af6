"""Guests made of nothing but real images: what relocation does to the sharing of these."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pagedup.guests.aslr import SYSTEMS
from pagedup.guests.spec import GuestSpec, ImageSet, ProcessSet, SpecError
from pagedup.memory.layouts import PAGE

if TYPE_CHECKING:
    from pagedup.guests.images import Image
    from pagedup.guests.spec import System

# Of the systems that run an image the one whose addresses are most at random.
_RUN_BY: tuple[System, ...] = ("windows-7-x86", "windows-10-x64", "linux")
_STEP = 4 << 20  # bytes that a guest's memory is a multiple of


def specs_of_images(paths: Sequence[str]) -> tuple[list[GuestSpec], list[Image]]:
    """For each system that runs some of the images under `paths` a guest with one process that has loaded them all.

    Also all the images. `paths` are binaries, directories, and wheels or other zips. SpecError if there is no image.
    """
    from pagedup.guests.real_files import fits, load_images

    loaded = {path: load_images(path) for path in paths}
    images = [image for path in paths for image in loaded[path] if image.kind != "file"]
    specs = []
    for system in _RUN_BY:
        bare = GuestSpec(name=system, system=system, memory=PAGE)
        own = {path: [image for image in loaded[path] if fits(image, bare)] for path in paths}
        own = {path: found for path, found in own.items() if found}
        if own:
            specs.append(_spec(system, own))
    if not specs:
        flaw = next((image.flaw for found in loaded.values() for image in found if image.flaw), "")
        known = ", ".join(sorted({f"{system.format} {system.machine}".strip() for system in SYSTEMS.values()}))
        raise SpecError(
            f"{', '.join(paths)}: no image that a guest could load ({known})" + (f"; {flaw}" if flaw else "")
        )
    return specs, images


def _spec(system: System, own: dict[str, list[Image]]) -> GuestSpec:
    pages = sum(image.n_pages for found in own.values() for image in found)
    count = sum(map(len, own.values()))
    # Beside the images: page tables of the process, and its stack.
    needed = (pages + -(-pages // 512) + 64) * PAGE
    sets = tuple(
        ImageSet(name=_label(path, index, own), role="library", path=path, data_written=0.0)
        for index, path in enumerate(own)
    )
    return GuestSpec(
        name=system,
        system=system,
        guests=2,
        memory=-(-needed // _STEP) * _STEP,
        images=sets,
        processes=(ProcessSet(name="process", libraries=count),),
    )


def _label(path: str, index: int, own: dict[str, list[Image]]) -> str:
    """The file's name, and a number where another has the same."""
    names = [os.path.basename(os.path.normpath(other)) for other in own]
    return names[index] if names.count(names[index]) == 1 else f"{names[index]} {index + 1}"
