"""Layouts from specifications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec
import numpy as np

import dedupcore
from pagedup.guests.boot import Boot
from pagedup.guests.moved import name_moved
from pagedup.guests.numbering import Numbering
from pagedup.guests.real_files import RealContent, RealFiles
from pagedup.guests.spec import GuestSpec, checked
from pagedup.guests.template import Template, TemplateBuilder
from pagedup.memory.layouts import ABSENT, Layout, NameKind
from pagedup.memory.layouts.names import GUEST_BITS, NUMBER_BITS, kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray


def generate(
    spec: GuestSpec | Sequence[GuestSpec],
    count: int | None = None,
    seed: int = 0,
    *,
    threads: int | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[Layout]:
    """`count` guests of each specification, or as many as it says. Their names can be compared with one another only.

    The same arguments give the same layouts, to the bit, on any machine and for any number of threads. Takes 10 bytes a
    page of the guests, and while it runs some 30 a page of one guest for each specification and thread. Raises
    SpecError, which names the field, for a guest that does not fit in its memory; ValueError for a count below 1 or a
    negative seed.
    """
    specs = [checked(one) for one in ([spec] if isinstance(spec, GuestSpec) else spec)]
    if count is not None and count < 1:
        raise ValueError(f"count is {count}; it must be 1 or more")
    if seed < 0:
        raise ValueError(f"seed is {seed}; it must be 0 or more")
    counts = [one.guests if count is None else count for one in specs]
    if sum(counts) + len(specs) >> GUEST_BITS:
        raise ValueError(f"{sum(counts):,} guests; fewer than {1 << GUEST_BITS:,} can be told apart")
    numbering = Numbering()
    files = RealFiles(specs)
    templates = [TemplateBuilder(one, numbering, files).build() for one in specs]
    space = _space(specs, counts, seed, files)
    # One child of the seed for the snapshot of each specification, and one for each guest.
    seeds = np.random.SeedSequence(seed).spawn(len(specs) + sum(counts))
    keys = [int(child.generate_state(1, np.uint64)[0]) for child in seeds]
    boots = _boots(specs, templates, counts, keys)
    moved, origins = name_moved(files, boots)
    content = RealContent(files, origins) if files.images else None
    names = _guest_names(specs, counts)

    def make(number: int) -> Layout:
        own = len(specs) + number
        layout = _guest(boots[number], own, keys[own], moved[number], names[number], space)
        return replace(layout, content=content)

    layouts = []
    with ThreadPoolExecutor(dedupcore.available_threads() if threads is None else threads) as pool:
        for layout in pool.map(make, range(len(boots))):
            layouts.append(layout)
            if progress is not None:
                progress("generating", len(layouts), len(boots))
    return layouts


def _boots(
    specs: Sequence[GuestSpec], templates: Sequence[Template], counts: Sequence[int], keys: Sequence[int]
) -> list[Boot]:
    """The boot of each guest. The snapshots of specifications have the numbers 0, 1, ..., guests those behind."""
    boots: list[Boot] = []
    for index, (spec, template, count) in enumerate(zip(specs, templates, counts, strict=True)):
        if spec.start == "snapshot":
            boots += [Boot(template, index, keys[index])] * count
        else:
            begin = len(specs) + len(boots)
            boots += [Boot(template, number, keys[number]) for number in range(begin, begin + count)]
    return boots


def _space(specs: Sequence[GuestSpec], counts: Sequence[int], seed: int, files: RealFiles) -> str:
    """A digest of all that names depend on."""
    from blake3 import blake3  # only here: importing pagedup shall not load it

    parts = [specs, counts, str(seed), files.digest() if files.images else ""]
    return f"made-{blake3(msgspec.json.encode(parts, order='deterministic')).hexdigest()[:32]}"


def _guest_names(specs: Sequence[GuestSpec], counts: Sequence[int]) -> list[str]:
    """The specification's name and a number, unique even if two specifications have one name."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for spec, count in zip(specs, counts, strict=True):
        for _ in range(count):
            seen[spec.name] = seen.get(spec.name, 0) + 1
            names.append(f"{spec.name}-{seen[spec.name]}")
    return names


def _guest(boot: Boot, number: int, key: int, moved: Sequence[NDArray[np.uint64]], name: str, space: str) -> Layout:
    """One guest. What it wrote since its boot bears its own `number`, and which pages these are its own `key` tells."""
    template = boot.template
    names = template.names
    if template.moved:
        names = names.copy()
        for pages, own in zip(template.moved, moved, strict=True):
            names[pages.slots] = own
    chances = [min(round(variable.chance * (1 << 32)), (1 << 32) - 1) for variable in template.table_of_variables]
    variation = (
        boot.values(),
        np.array(chances, np.uint32),
        kind_bits(NameKind.OWN) | number << NUMBER_BITS,
        key,
        np.full(template.n_pages, ABSENT, np.uint64),
        np.full(template.n_pages, len(template.region_table) - 1, np.uint8),
    )
    for part, places in boot.places():
        dedupcore.name_pages(
            places,
            boot.cached() if part == template.cache else names[part],
            template.variables[part],
            template.regions[part],
            *variation,
            first=part.start,
        )
    out_names, out_regions = variation[-2:]
    runs = np.array([[0, template.n_pages]], np.uint64)
    return Layout(name, out_names, out_regions, template.region_table, runs, space)
