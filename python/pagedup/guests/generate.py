"""Layouts from specifications."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec
import numpy as np

import dedupcore
from pagedup.guests.aslr import SYSTEMS
from pagedup.guests.numbering import Numbering
from pagedup.guests.spec import GuestSpec, checked
from pagedup.guests.template import CONSTANT, OWN, STRETCH, Template, TemplateBuilder
from pagedup.memory.layouts import ABSENT, Layout, NameKind
from pagedup.memory.layouts.names import BASE_BITS, GUEST_BITS, NUMBER_BITS, kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KERNEL_STEP = 512  # pages: Linux places its kernel in steps of 2 MiB (x86 Kconfig, PHYSICAL_ALIGN)
_KERNEL_AT = 4096  # page of 16 MiB, where it lies without ASLR (x86 Kconfig, PHYSICAL_START)


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
    if len(specs) + sum(counts) > 1 << GUEST_BITS:
        raise ValueError(f"{sum(counts):,} guests; fewer than {1 << GUEST_BITS:,} can be told apart")
    numbering = Numbering()
    templates = [TemplateBuilder(one, numbering).build() for one in specs]
    space = _space(specs, counts, seed)
    # One child of the seed for each guest, and before these one for the snapshot of each specification.
    seeds = np.random.SeedSequence(seed).spawn(len(specs) + sum(counts))
    keys = [int(child.generate_state(1, np.uint64)[0]) for child in seeds]
    names = _guest_names(specs, counts)
    kinds = [snapshot for snapshot, number in enumerate(counts) for _ in range(number)]
    jobs = [
        (templates[snapshot], snapshot, number, keys[snapshot], keys[number], name, space)
        for number, (snapshot, name) in enumerate(zip(kinds, names, strict=True), len(specs))
    ]
    layouts = []
    with ThreadPoolExecutor(dedupcore.available_threads() if threads is None else threads) as pool:
        for layout in pool.map(lambda job: _guest(*job), jobs):
            layouts.append(layout)
            if progress is not None:
                progress("generating", len(layouts), len(jobs))
    return layouts


def _space(specs: Sequence[GuestSpec], counts: Sequence[int], seed: int) -> str:
    """A digest of all that names depend on."""
    from blake3 import blake3  # only here: importing pagedup shall not load it

    text = msgspec.json.encode([specs, counts, str(seed)], order="deterministic")
    return f"made-{blake3(text).hexdigest()[:32]}"


def _guest_names(specs: Sequence[GuestSpec], counts: Sequence[int]) -> list[str]:
    """The specification's name and a number, unique even if two specifications have one name."""
    names: list[str] = []
    seen: dict[str, int] = {}
    for spec, count in zip(specs, counts, strict=True):
        for _ in range(count):
            seen[spec.name] = seen.get(spec.name, 0) + 1
            names.append(f"{spec.name}-{seen[spec.name]}")
    return names


def _guest(
    template: Template, snapshot: int, number: int, common_key: int, own_key: int, name: str, space: str
) -> Layout:
    """One guest. `snapshot` numbers what guests of its kind were resumed from, and `number` the guest beside these."""
    resumed = template.spec.start == "snapshot"
    streams = _Streams(common_key if resumed else own_key)
    values, chances = _values(template, snapshot if resumed else number, streams)
    names = template.names
    if template.cache.start < template.cache.stop:
        names = names.copy()
        names[template.cache] = _cached(template, streams)
    places = _places(template, streams)
    out_names = np.full(template.n_pages, ABSENT, np.uint64)
    out_regions = np.full(template.n_pages, len(template.region_table) - 1, np.uint16)
    dedupcore.name_pages(
        places, names, template.variables, template.regions, values, chances,
        kind_bits(NameKind.OWN) | number << NUMBER_BITS, own_key, out_names, out_regions,
    )  # fmt: skip
    runs = np.array([[0, template.n_pages]], np.uint64)
    return Layout(name, out_names, out_regions, template.region_table, runs, space)


class _Streams:
    """Numbers drawn at random by purpose, so that what one purpose draws moves no other."""

    def __init__(self, key: int) -> None:
        self._key = key

    def key(self, purpose: str) -> int:
        """A key of a stream of its own, from the bytes of the purpose."""
        key = self._key
        out = np.empty(1, np.uint64)
        for byte in purpose.encode():
            dedupcore.random_numbers(key, out, first=byte)
            key = int(out[0])
        return key

    def below(self, purpose: str, bound: int) -> int:
        """A number below `bound`, which is at most 2^32."""
        out = np.empty(1, np.uint64)
        dedupcore.random_numbers(self.key(purpose), out)
        return (int(out[0]) >> 32) * bound >> 32


def _values(template: Template, number: int, streams: _Streams) -> tuple[NDArray[np.uint64], NDArray[np.uint32]]:
    """What completes the names, by variable; and the chances of being written, of 2^32."""
    sources = {variable.source for variable in template.table_of_variables}
    numbers = {source: _value(template, source, number, streams) for source in sources}
    values = np.array([numbers[variable.source] for variable in template.table_of_variables], np.uint64)
    chances = [min(round(variable.chance * (1 << 32)), (1 << 32) - 1) for variable in template.table_of_variables]
    return values, np.array(chances, np.uint32)


def _value(template: Template, source: str, number: int, streams: _Streams) -> int:
    if source == CONSTANT:
        return 0
    if source == OWN:
        return number << NUMBER_BITS
    spec = template.spec
    if source.startswith("process "):  # without ASLR: what processes of one set fill in is the same
        return next(index for index, own in enumerate(spec.processes) if source == f"process {own.name}")
    if not spec.aslr:
        return 0
    bases = SYSTEMS[spec.system].bases
    role = source.partition(" ")[0]
    value = streams.below(source, bases[role])  # type: ignore[index]
    if spec.system == "linux" and role == "driver":  # modules hold addresses of the kernel, too
        value = value * bases["kernel"] + streams.below("kernel", bases["kernel"])
    assert value < 1 << BASE_BITS
    return value


def _cached(template: Template, streams: _Streams) -> NDArray[np.uint64]:
    """The names of the file cache that a guest has by its own choice: whole stretches of the files."""
    n_pages = template.cache.stop - template.cache.start
    draws = np.empty(-(-template.files // STRETCH), np.uint64)
    dedupcore.random_numbers(streams.key("file cache"), draws)
    wanted = min(-(-n_pages // STRETCH) + 1, len(draws))  # one more, since the last stretch of the files may be short
    chosen = np.sort(np.argpartition(draws, wanted - 1)[:wanted]).astype(np.uint64)
    inside = np.arange(STRETCH, dtype=np.uint64)
    pages: NDArray[np.uint64] = np.add.outer(chosen * np.uint64(STRETCH), inside).reshape(-1)
    pages = pages[pages < np.uint64(template.files)][:n_pages]
    names: NDArray[np.uint64] = np.uint64(template.first_file) + (pages << np.uint64(BASE_BITS))
    return names


def _places(template: Template, streams: _Streams) -> NDArray[np.uint32]:
    """The guest-physical page of each page of the template."""
    spec = template.spec
    n = len(template.counts)
    order = np.arange(n)
    if not spec.placement.same_order:
        draws = np.empty(n - template.first_user_segment, np.uint64)
        dedupcore.random_numbers(streams.key("order"), draws)
        order[template.first_user_segment :] = template.first_user_segment + np.argsort(draws, kind="stable")
    counts = template.counts[order]
    fixed = np.full(n, -1, np.int64)
    if spec.system == "linux" and template.kernel_segment >= 0:
        fixed[template.kernel_segment] = _kernel_place(template, streams)
    placed = np.empty(int(counts.sum()), np.uint32)
    dedupcore.place(
        streams.key("place"),
        template.n_pages,
        spec.placement.fragmentation,
        counts,
        template.max_orders[order],
        fixed,
        placed,
    )
    starts = np.cumsum(template.counts) - template.counts
    places = np.empty_like(placed)
    at = 0
    for segment, length in zip(order.tolist(), counts.tolist(), strict=True):
        places[starts[segment] : starts[segment] + length] = placed[at : at + length]
        at += length
    return places


def _kernel_place(template: Template, streams: _Streams) -> int:
    """The first page of Linux's kernel: drawn apart from its virtual base (arch/x86/boot/compressed/kaslr.c)."""
    length = int(template.counts[template.kernel_segment])
    steps = (template.n_pages - length - _KERNEL_AT) // _KERNEL_STEP
    if steps < 1:  # a guest too small for where kernels are put
        return -1
    return _KERNEL_AT + (streams.below("kernel place", steps) * _KERNEL_STEP if template.spec.aslr else 0)
