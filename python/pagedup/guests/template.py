"""The template of a kind of guest: all pages that such a guest allocates, before they are placed and named apart.

A page of the template has a name, and a variable whose value, another one in each guest, completes it: the base of the
image that the page is of, or the guest itself for content that stands nowhere else. So one template serves all guests
of a kind, and a guest is made in one pass over it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.guests.aslr import SYSTEMS
from pagedup.guests.cache_files import CacheFiles, MadeUpFiles, RealCacheFiles
from pagedup.guests.loaded import AddressSpace, LoadedImage, RealPlace, as_shares, make_up, read_real
from pagedup.guests.numbering import Numbering
from pagedup.guests.real_files import RealFiles, chosen
from pagedup.guests.spec import Content, GuestSpec, ImageSet, ProcessSet, SpecError, pages_of
from pagedup.memory.layouts import LayoutRegion, NameKind, RegionKind
from pagedup.memory.layouts.layout import MOST_REGIONS
from pagedup.memory.layouts.names import kind_bits

if TYPE_CHECKING:
    from numpy.typing import NDArray

_ALIKE = 4  # neighbouring pages of anonymous memory that hold the same kind of content
_LARGE_ORDER = 9  # 2^9 pages: 2 MiB
_KERNEL_ORDER = 10  # as much at once as Linux's allocator gives out
_PATTERN_ORDER = 8  # stretches of it are shorter than 2 MiB on the real guests that were looked at
_USER_KINDS = (RegionKind.IMAGE_TEXT, RegionKind.IMAGE_RDATA, RegionKind.IMAGE_DATA)
_KERNEL_KINDS = (RegionKind.KERNEL_TEXT, RegionKind.KERNEL_DATA, RegionKind.KERNEL_DATA)
_PER_PROCESS_TABLES = 4  # page tables of a process beside those that map its pages: one of each level


@dataclass(frozen=True, slots=True)
class Variable:
    """What completes the names of some pages: the value of `source`, and the chance that a guest wrote the page."""

    source: str
    chance: float = 0.0


CONSTANT, OWN = "", "own"


@dataclass(frozen=True, slots=True, eq=False)
class MovedPages:
    """Pages of a real image with relocations: where in the template they stand, and which pages of the image they are.

    `source` is that of the variable that tells the image's base.
    """

    slots: NDArray[np.int64]
    pages: NDArray[np.int64]
    place: RealPlace
    source: str


@dataclass(slots=True)
class Template:
    """All pages that a guest of a kind allocates, segment by segment; arrays have an item a page, or a segment.

    names: what is known of the name. variables: index into `table_of_variables`. regions: index into `region_table`.
    counts, max_orders: of each segment its pages, and the largest block that it asks for (2^order pages).
    has_kernel: the first segment is the kernel; those before first_user_segment are always allocated in this
    order. files, hot, cache: what the file cache holds pages of; the first `hot` ones are in every guest, and the
    segment `cache` is for those that each guest chooses. moved: pages whose names each guest has to be told.
    """

    spec: GuestSpec
    n_pages: int
    names: NDArray[np.uint64]
    variables: NDArray[np.uint16]
    regions: NDArray[np.uint8]
    counts: NDArray[np.int64]
    max_orders: NDArray[np.uint8]
    has_kernel: bool
    first_user_segment: int
    table_of_variables: list[Variable]
    region_table: list[LayoutRegion]
    files: CacheFiles
    hot: int
    cache: slice
    moved: list[MovedPages]


@dataclass(slots=True)
class _Parts:
    names: list[NDArray[np.uint64]] = field(default_factory=list)
    variables: list[NDArray[np.uint16]] = field(default_factory=list)
    regions: list[NDArray[np.uint8]] = field(default_factory=list)
    segments: list[tuple[int, int]] = field(default_factory=list)  # first page, largest block it asks for


class TemplateBuilder:
    """Lays the parts of a specification one behind the other."""

    def __init__(self, spec: GuestSpec, numbering: Numbering, real: RealFiles) -> None:
        self._spec = spec
        self._real = real
        self._addresses = AddressSpace()
        self._moved: list[MovedPages] = []
        self._numbering = numbering
        self._loading = SYSTEMS[spec.system]
        self._parts = _Parts()
        self._n_pages = 0
        self._variables: dict[Variable, int] = {}
        self._regions: dict[LayoutRegion, int] = {}
        self._libraries: list[LoadedImage] = []
        self._executables: dict[str, LoadedImage] = {}
        self._churned = -math.expm1(-spec.churn * spec.hours)
        self._variable(CONSTANT)

    def build(self) -> Template:
        """The template; SpecError where the specification asks for more than its memory."""
        spec = self._spec
        memory = pages_of(spec.memory, "memory")
        self._refuse_too_much(memory)
        for images in spec.images:
            if images.role == "kernel":
                self._add_system_images(images)
        has_kernel = self._n_pages > 0
        for images in spec.images:
            if images.role == "driver":
                self._add_system_images(images)
        self._begin_segment(_KERNEL_ORDER)
        self._add_anonymous("kernel", RegionKind.KERNEL_DATA, "", spec.kernel.data, spec.kernel.content)
        first_user = self._n_pages
        self._add_user_images()
        for processes in spec.processes:
            for instance in range(processes.count):
                self._add_process(processes, instance)
        used = self._n_pages
        if used > memory:
            raise SpecError(f"memory: {memory:,} pages, and images, kernel and processes take {used:,}")
        files = self._cache_files()
        hot, cache = self._add_cache(files, memory - used)
        if self._n_pages > memory:
            raise SpecError(
                f"file_cache.size: {self._n_pages - used:,} pages, and {memory - used:,} of the memory are left"
            )
        self._add_free(memory - self._n_pages)
        return self._finish(memory, has_kernel, first_user, files, hot, cache)

    def _refuse_too_much(self, memory: int) -> None:
        """SpecError for sizes that cannot fit together, before they are given memory here."""
        spec = self._spec
        self._most_libraries = left = max((processes.libraries for processes in spec.processes), default=0)
        wanted = {processes.executable for processes in spec.processes}
        parts = [("kernel.data", 1, pages_of(spec.kernel.data, "kernel.data"))]
        for images in spec.images:
            count = images.count
            if images.role == "library":
                count = min(count, left)
                left -= count
            elif images.role == "executable":
                count = int(images.name in wanted)
            size = sum(pages_of(part, f"images.{images.name}") for part in (images.text, images.rdata, images.data))
            parts.append((f"images.{images.name}", count, size))
        for own in spec.processes:
            size = pages_of(own.heap, "heap") + pages_of(own.stack, "stack")
            parts.append((f"processes.{own.name}", own.count, size))
        parts.append(("file_cache.size", 1, pages_of(spec.file_cache.size, "file_cache.size")))
        room = memory
        for what, count, size in parts:
            if count * size > room:
                raise SpecError(f"{what}: {count * size:,} pages, and {room:,} of the memory's {memory:,} are left")
            room -= count * size

    def _finish(
        self, memory: int, has_kernel: bool, first_user: int, files: CacheFiles, hot: int, cache: slice
    ) -> Template:
        if len(self._variables) > 1 << 16:
            raise SpecError(f"processes and images have {len(self._variables):,} bases; at most 65,536 are possible")
        parts = self._parts
        begins = np.array([first for first, _ in parts.segments] + [self._n_pages], np.int64)
        counts = np.diff(begins)
        some = counts > 0
        empty = np.empty(0, np.uint64)
        return Template(
            self._spec,
            memory,
            np.concatenate([empty, *parts.names]),
            np.concatenate([empty.astype(np.uint16), *parts.variables]),
            np.concatenate([empty.astype(np.uint8), *parts.regions]),
            counts[some],
            np.array([order for _, order in parts.segments], np.uint8)[some],
            has_kernel,
            int(np.searchsorted(begins[:-1][some], first_user)),
            list(self._variables),
            [*self._regions, LayoutRegion(RegionKind.ABSENT)],
            files,
            hot,
            cache,
            self._moved,
        )

    # --- segments -------------------------------------------------------------------------------------------------

    def _variable(self, source: str, chance: float = 0.0) -> int:
        return self._variables.setdefault(Variable(source, chance), len(self._variables))

    def _begin_segment(self, order: int = 0) -> None:
        """What is added from now on is allocated together, in blocks of at most 2^order pages."""
        self._parts.segments.append((self._n_pages, order))

    def _add(
        self,
        region: LayoutRegion,
        names: NDArray[np.uint64],
        variables: NDArray[np.uint16] | int,
    ) -> None:
        """Pages at the end of the segment; nothing where there is none."""
        if not len(names):
            return
        if not isinstance(variables, np.ndarray):
            variables = np.full(len(names), variables, np.uint16)
        self._parts.names.append(names)
        self._parts.variables.append(variables)
        self._parts.regions.append(np.full(len(names), self._region(region), np.uint8))
        self._n_pages += len(names)

    def _region(self, region: LayoutRegion) -> int:
        """The number of a region; where there are too many to number, of its kind as a whole."""
        if region not in self._regions and len(self._regions) >= MOST_REGIONS - len(RegionKind):
            region = LayoutRegion(region.kind)
        return self._regions.setdefault(region, len(self._regions))

    def _own(self, n_pages: int) -> NDArray[np.uint64]:
        """Names of the guest's own: numbered by where they stand in the template, as its written pages are, too."""
        return np.arange(self._n_pages, self._n_pages + n_pages, dtype=np.uint64) | np.uint64(kind_bits(NameKind.OWN))

    def _add_own(self, region: LayoutRegion, n_pages: int) -> None:
        self._add(region, self._own(n_pages), self._variable(OWN, self._own_chance()))

    def _own_chance(self) -> float:
        """Own pages are written, too, which shows where they were those of a common snapshot."""
        return self._churned if self._spec.start == "snapshot" else 0.0

    # --- images ---------------------------------------------------------------------------------------------------

    def _add_system_images(self, images: ImageSet) -> None:
        """Images of the kernel and of its drivers: one copy, and what is written in it is the guest's own."""
        for image in self._loaded(images):
            self._begin_segment(_KERNEL_ORDER)
            self._add_shared(image, images.role, _KERNEL_KINDS)
            self._add_own(LayoutRegion(RegionKind.KERNEL_DATA, images.name), int(np.count_nonzero(image.written)))

    def _add_user_images(self) -> None:
        """What processes share of their images: the pages that they do not write."""
        most = self._most_libraries
        for images in self._spec.images:
            if images.role == "library":
                self._libraries += self._loaded(images, most - len(self._libraries))
        self._libraries = self._libraries[:most]
        wanted = {processes.executable for processes in self._spec.processes}
        for images in self._spec.images:
            if images.role == "executable" and images.name in wanted:
                self._executables[images.name] = self._loaded(images, 1)[0]
        for image in self._libraries:
            self._begin_segment()
            self._add_shared(image, "library", _USER_KINDS)
        for name, image in self._executables.items():
            self._begin_segment()
            self._add_shared(image, f"executable {name}", _USER_KINDS)

    def _loaded(self, images: ImageSet, most: int = 1 << 32) -> list[LoadedImage]:
        """The images of a set; of those that are made up, at most so many."""
        if images.path:
            return [
                read_real(images, index, self._numbering, self._spec, self._real, self._addresses)
                for index in chosen(images, self._spec, self._real)
            ]
        count = min(images.count, most)
        return [make_up(images, index, self._numbering, self._spec) for index in range(count)]

    def _add_shared(self, image: LoadedImage, source: str, kinds: Sequence[RegionKind]) -> None:
        """The pages of an image that there is one copy of."""
        constant, base = self._variable(CONSTANT), self._variable(source)
        for number, kind in enumerate(kinds):
            own = (image.kinds == number) & ~image.filled & ~image.written
            begin = self._n_pages
            variables = base if image.real is None else constant
            self._add(
                LayoutRegion(kind, image.name),
                image.names[own],
                np.where(image.moves[own], variables, constant).astype(np.uint16),
            )
            if image.real is not None and image.moves[own].any():
                slots = begin + np.flatnonzero(image.moves[own])
                pages = image.pages[own & image.moves].astype(np.int64)
                self._moved.append(MovedPages(slots, pages, image.real, source))

    # --- processes ------------------------------------------------------------------------------------------------

    def _add_process(self, processes: ProcessSet, instance: int) -> None:
        mapped = 0
        images = self._libraries[: processes.libraries]
        if len(images) < processes.libraries:
            raise SpecError(
                f"processes: '{processes.name}' maps {processes.libraries} libraries, and the guest has {len(images)}"
            )
        if processes.executable:
            images = [self._executables[processes.executable], *images]
        self._begin_segment()
        for image in images:
            self._add_private(image, processes)
            mapped += image.n_pages
        content, label = processes.content, processes.name
        key = f"{processes.name} {instance}"
        self._begin_segment(_LARGE_ORDER if processes.large_pages else 0)
        self._add_anonymous(key, RegionKind.HEAP, label, processes.heap, content)
        self._begin_segment()
        stack = pages_of(processes.stack, "stack")
        self._add_own(LayoutRegion(RegionKind.STACK, label), stack)
        mapped += pages_of(processes.heap, "heap") + stack
        self._add_own(LayoutRegion(RegionKind.PAGE_TABLES, label), -(-mapped // 512) + _PER_PROCESS_TABLES)

    def _add_private(self, image: LoadedImage, processes: ProcessSet) -> None:
        """A process's own copies of pages of an image: what its loader fills in, and what it writes."""
        rdata = LayoutRegion(RegionKind.IMAGE_RDATA, image.name)
        if not self._loading.relocates_in_process:
            self._add(rdata, image.filled_names(), self._variable("library"))
        elif self._spec.aslr:  # bases drawn by each process: none agrees with another
            self._add_own(rdata, int(np.count_nonzero(image.filled)))
        else:
            number = self._numbering.common((self._spec.system, "loaded", processes.name, processes.libraries))
            self._add(rdata, image.filled_names(), self._variable(f"process {number}"))
        self._add_own(LayoutRegion(RegionKind.IMAGE_DATA, image.name), int(np.count_nonzero(image.written)))

    def _add_anonymous(self, key: str, kind: RegionKind, label: str, size: int | str, content: Content) -> None:
        n_pages = pages_of(size, "heap" if kind == RegionKind.HEAP else "kernel.data")
        number = self._numbering.common((self._spec.system, key))
        draws = np.empty(-(-n_pages // _ALIKE), np.uint64)
        dedupcore.random_numbers(number, draws)
        shares = np.repeat(as_shares(draws), _ALIKE)[:n_pages]
        zero = shares < content.zero
        common = ~zero & (shares < content.zero + content.common)
        repeated = ~zero & ~common & (shares < content.zero + content.common + content.repeated)
        names = self._own(n_pages)
        plain = np.flatnonzero(~(zero | common | repeated))
        if len(plain):
            which = np.empty(n_pages, np.uint64)
            dedupcore.random_numbers(number + (1 << 32), which)
            names[repeated] = names[plain[(which[repeated] % np.uint64(len(plain))).astype(np.int64)]]
        names[common] = np.uint64(kind_bits(NameKind.COMMON) | number << 32) | np.flatnonzero(common).astype(np.uint64)
        names[zero] = 0
        variables = np.full(n_pages, self._variable(OWN, self._own_chance()), np.uint16)
        variables[zero | common] = self._variable(CONSTANT, self._churned)
        self._add(LayoutRegion(kind, label), names, variables)

    # --- the rest of memory ---------------------------------------------------------------------------------------

    def _cache_files(self) -> CacheFiles:
        cache = self._spec.file_cache
        if cache.path:
            own = [self._real.names(image) for image in self._real.cached(cache.path)]
            return RealCacheFiles(np.concatenate([np.empty(0, np.uint64), *own]))
        n_pages = pages_of(cache.files, "file_cache.files")
        return MadeUpFiles(self._numbering.image((self._spec.system, "files"), n_pages), n_pages, cache.repeated)

    def _add_cache(self, files: CacheFiles, room: int) -> tuple[int, slice]:
        """How many pages of the files are hot, and where those stand that each guest chooses."""
        cache = self._spec.file_cache
        n_pages = pages_of(cache.size, "file_cache.size")
        grown = round(pages_of(cache.growth, "file_cache.growth") * self._spec.hours)
        n_pages += max(0, min(grown, room - n_pages))
        hot = round(cache.hot * n_pages)
        if n_pages > len(files):
            raise SpecError(f"file_cache.files: {len(files):,} pages, which is less than the cache holds, {n_pages:,}")
        region = LayoutRegion(RegionKind.FILE_CACHE)
        chance = 1 - (1 - cache.written) * (1 - self._churned)
        variable = self._variable(CONSTANT, chance)
        self._begin_segment()
        self._add(region, files.names(np.arange(hot)), variable)
        self._begin_segment()
        begin = self._n_pages
        self._add(region, np.zeros(n_pages - hot, np.uint64), variable)
        return hot, slice(begin, self._n_pages)

    def _add_free(self, room: int) -> None:
        free = self._spec.free
        region = LayoutRegion(RegionKind.FREE)
        self._begin_segment(_PATTERN_ORDER)
        pattern = min(pages_of(free.pattern, "free.pattern"), room)
        number = self._numbering.common((self._spec.system, "free pattern"))
        content = np.full(pattern, kind_bits(NameKind.COMMON) | number << 32, np.uint64)
        self._add(region, content, self._variable(CONSTANT))
        room -= pattern
        self._begin_segment(_KERNEL_ORDER)
        stale = round(free.stale * room)
        zero = min(round(free.zero * room), room - stale)  # where both are rounded up
        self._add_own(region, stale)
        self._add(region, np.zeros(zero, np.uint64), self._variable(CONSTANT))
