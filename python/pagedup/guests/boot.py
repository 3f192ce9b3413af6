"""What one boot of a guest draws at random: bases, the files in its cache, and where its pages come to lie."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

import dedupcore
from pagedup.guests.aslr import SYSTEMS
from pagedup.guests.cache_files import STRETCH
from pagedup.guests.template import CONSTANT, OWN, Template
from pagedup.memory.layouts.names import BASE_BITS, NUMBER_BITS

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KERNEL_STEP = 512  # pages: Linux places its kernel in steps of 2 MiB (x86 Kconfig, PHYSICAL_ALIGN)
_KERNEL_AT = 4096  # page of 16 MiB, where it lies without ASLR (x86 Kconfig, PHYSICAL_START)


class Boot:
    """One boot. Guests that were resumed from one snapshot have the same.

    Every purpose has a stream of random numbers of its own, so that what one draws moves no other. `number` is the
    guest's, or the snapshot's: content of its own bears it.
    """

    def __init__(self, template: Template, number: int, key: int) -> None:
        self.template = template
        self.number = number
        self._key = key

    def base(self, source: str) -> int:
        """The number of the base of the images that a variable stands for."""
        spec = self.template.spec
        if not spec.aslr:
            return 0
        bases = SYSTEMS[spec.system].bases
        role = source.partition(" ")[0]
        value = self._below(source, bases[role])  # type: ignore[index]
        if spec.system == "linux" and role == "driver":  # modules hold addresses of the kernel, too
            value = value * bases["kernel"] + self._below("kernel", bases["kernel"])
        assert value < 1 << BASE_BITS
        return value

    def values(self) -> NDArray[np.uint64]:
        """Uint64 ndarray: what completes the names, for each variable."""
        sources = [variable.source for variable in self.template.table_of_variables]
        values = {source: self._value(source) for source in set(sources)}
        return np.array([values[source] for source in sources], np.uint64)

    def _value(self, source: str) -> int:
        if source == CONSTANT:
            return 0
        if source == OWN:
            return self.number << NUMBER_BITS
        if source.startswith("process "):  # without ASLR: what processes of one set fill in is the same
            return int(source.removeprefix("process "))
        return self.base(source)

    def cached(self) -> NDArray[np.uint64]:
        """The names of the file cache that a guest has by its own choice: whole stretches of the files."""
        files, hot = self.template.files, self.template.hot
        n_pages = self.template.cache.stop - self.template.cache.start
        n_files = len(files) - hot
        draws = np.empty(-(-n_files // STRETCH), np.uint64)
        dedupcore.random_numbers(self._stream("file cache"), draws)
        wanted = min(-(-n_pages // STRETCH) + 1, len(draws))  # one more, since the last stretch of files may be short
        chosen = np.sort(np.argpartition(draws, wanted - 1)[:wanted]) if wanted else np.empty(0, np.int64)
        pages = np.add.outer(chosen * STRETCH, np.arange(STRETCH)).reshape(-1)
        return files.names(pages[pages < n_files][:n_pages] + hot)

    def places(self) -> Iterator[tuple[slice, NDArray[np.uint32]]]:
        """For each segment of the template the guest-physical pages where it lies, in the order of allocation."""
        template, spec = self.template, self.template.spec
        n = len(template.counts)
        order = np.arange(n)
        if not spec.placement.same_order:
            draws = np.empty(n - template.first_user_segment, np.uint64)
            dedupcore.random_numbers(self._stream("order"), draws)
            order[template.first_user_segment :] = template.first_user_segment + np.argsort(draws, kind="stable")
        counts = template.counts[order]
        fixed = np.full(n, -1, np.int64)
        if spec.system == "linux" and template.has_kernel:
            fixed[0] = self._kernel_place()
        places = np.empty(int(counts.sum()), np.uint32)
        orders = template.max_orders[order]
        key = self._stream("place")
        dedupcore.place(key, template.n_pages, spec.placement.fragmentation, counts, orders, fixed, places)
        starts = (np.cumsum(template.counts) - template.counts)[order]
        at = 0
        for start, count in zip(starts.tolist(), counts.tolist(), strict=True):
            yield slice(start, start + count), places[at : at + count]
            at += count

    def _kernel_place(self) -> int:
        """The first page of Linux's kernel: drawn apart from its virtual base (arch/x86/boot/compressed/kaslr.c)."""
        template = self.template
        length = int(template.counts[0])
        steps = (template.n_pages - length - _KERNEL_AT) // _KERNEL_STEP
        if steps < 1:  # a guest too small for where kernels are put
            return -1
        return _KERNEL_AT + (self._below("kernel place", steps) * _KERNEL_STEP if template.spec.aslr else 0)

    def _stream(self, purpose: str) -> int:
        """The key of a purpose's stream, from the bytes of its name."""
        key = self._key
        out = np.empty(1, np.uint64)
        for byte in purpose.encode():
            dedupcore.random_numbers(key, out, first=byte)
            key = int(out[0])
        return key

    def _below(self, purpose: str, bound: int) -> int:
        """A number below `bound`, which is at most 2^32."""
        out = np.empty(1, np.uint64)
        dedupcore.random_numbers(self._stream(purpose), out)
        return (int(out[0]) >> 32) * bound >> 32
