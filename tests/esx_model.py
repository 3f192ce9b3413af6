"""The oracle of page sharing as VMware ESX does it: plain sets and dictionaries, and closed formulas for its pace.

Sources: C. A. Waldspurger, "Memory Resource Management in VMware ESX Server", OSDI 2002, section 4, for what
becomes of a page (here: the paper). For what came later: the descriptions and defaults that ESXi 6.5 itself
prints of Mem.Share* (esxcli system settings advanced list), VMware's KB 1021095 (large pages) and 2097593
(salting), and "Memory Counters" of the vSphere API reference. Where they leave something open it is read as
follows:

- The paper scans pages at random. Here the caller says which page comes next.
- A stale hint is removed (the paper); the page that found it becomes the hint. So each hash has one entry.
- A page has one hint at most: when its content has another hash at the next scan, the old hint goes.
- A page whose hash is another content's is not eligible for sharing (the paper) until it is scanned again, when
  that may have changed. It gets no hint, for the hash is taken.
- A frame of which all sharers but one have gone stays write-protected; the last one's write is a copy, too.
- A page that is given back takes its hint along, as COWH is of pages that there are.
- Zero pages are like all others: none is shared before two were scanned. ZERO counts those that are shared.
- Pages in large mappings are hashed and their hints kept (KB 1021095), apart from the others: nobody finds them,
  as nothing could be shared with them. When the large mapping is broken, each of its pages that has such a hint
  is looked at once more, in ascending order.
- Salting: 1 takes guests without a salt as of one salt, 2 takes each of them as alone; guests with a salt share
  with those of the same salt in both.
- "MB" is 2**20 bytes, "host CPU" the GHz of all cores together, and "entire VM" all pages that it was given. A
  setting of 0 ends scanning.
"""

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

Page = tuple[int, int]
"""Virtual machine, page in it."""

Key = tuple[Hashable, int]
"""Salt and hash of a content: where its entry in the table is."""


class Counts(NamedTuple):
    """In pages, how it stands: by the names of esxtop's PSHARE line and its columns ZERO and COWH."""

    zero: int
    """Of the shared ones, those that hold zero."""
    shared: int
    """Guest pages that are mapped to write-protected frames."""
    common: int
    """These frames."""
    saving: int
    cow_hints: int


@dataclass
class Done:
    """What was done until now."""

    pages_scanned: int = 0
    pages_hashed: int = 0  # scanned ones that are not shared already, and the pages of hints that are matched
    hints_matched: int = 0
    hints_stale: int = 0  # of these
    collisions: int = 0  # a page's hash was that of another content, shared or hinted
    pages_merged: int = 0  # that gave up a frame of their own for another
    cow_breaks: int = 0


@dataclass
class Frame:
    """A shared, write-protected one."""

    content: int
    pages: set[Page]


class EsxModel:
    """Virtual machines, their pages, and the table of hashes. A content is a number, and 0 is zero."""

    def __init__(
        self, share_force_salting: int = 2, hash_of: Callable[[int], int] = hash, pages_of_large: int = 512
    ) -> None:
        self.force_salting, self.hash_of, self.pages_of_large = share_force_salting, hash_of, pages_of_large
        self.salts: list[Hashable] = []  # of each virtual machine
        self.private: dict[Page, int] = {}  # contents of pages that are not shared
        self.frame_of: dict[Page, Frame] = {}  # of those that are
        self.frames: dict[Key, Frame] = {}
        self.hints: dict[Key, Page] = {}
        self.hint_of: dict[Page, Key] = {}
        self.ineligible: set[Page] = set()
        self.large: set[tuple[int, int]] = set()
        self.large_hint_of: dict[Page, Key] = {}
        self.done = Done()

    def add_vm(self, salt: Hashable = None) -> int:
        """Its number. A salt of None: it has none."""
        vm = len(self.salts)
        alone = ("the salt of", vm)
        self.salts.append({0: None, 1: salt, 2: alone if salt is None else salt}[self.force_salting])
        return vm

    def read(self, page: Page) -> int | None:
        """None: it is absent."""
        frame = self.frame_of.get(page)
        return frame.content if frame else self.private.get(page)

    def write(self, page: Page, content: int) -> None:
        """Hints stay as they are: their pages are not write-protected."""
        self.done.cow_breaks += page in self.frame_of
        self.leave(page)
        self.private[page] = content

    def release(self, page: Page) -> None:
        """It is absent from now on."""
        self.leave(page)
        self.forget_hint(page)
        self.large_hint_of.pop(page, None)

    def leave(self, page: Page) -> None:
        """What it held, it does not hold any more."""
        self.private.pop(page, None)
        self.ineligible.discard(page)
        if frame := self.frame_of.pop(page, None):
            frame.pages.remove(page)
            if not frame.pages:
                del self.frames[self.key(page, frame.content)]

    def scan(self, order: Iterable[Page]) -> None:
        """One page after the other; absent ones are passed over."""
        for page in order:
            self.done.pages_scanned += page in self.private or page in self.frame_of
            if page in self.private:
                self.look_at(page)

    def look_at(self, page: Page) -> None:
        """Hash it, and share it with what is equal, or remember it."""
        self.done.pages_hashed += 1
        content = self.private[page]
        key = self.key(page, content)
        if (page[0], page[1] // self.pages_of_large) in self.large:
            self.large_hint_of[page] = key
            return
        self.forget_hint(page)
        self.ineligible.discard(page)
        if key in self.frames:
            self.join(page, self.frames[key])
        elif key in self.hints:
            self.meet(page, self.hints[key], key)
        else:
            self.hint(page, key)

    def meet(self, page: Page, hinted: Page, key: Key) -> None:
        """The page has the hash of which another one has the hint."""
        self.done.hints_matched += 1
        self.done.pages_hashed += 1
        now = self.private[hinted]
        if self.key(hinted, now) != key:
            self.done.hints_stale += 1
            self.forget_hint(hinted)
            self.hint(page, key)
        elif now != self.private[page]:
            self.reject(page)
        else:
            self.forget_hint(hinted)
            self.frames[key] = Frame(now, set())
            self.enter(hinted, self.frames[key])
            self.join(page, self.frames[key])

    def join(self, page: Page, frame: Frame) -> None:
        """If the frame holds the same."""
        if self.private[page] == frame.content:
            self.done.pages_merged += 1
            self.enter(page, frame)
        else:
            self.reject(page)

    def enter(self, page: Page, frame: Frame) -> None:
        del self.private[page]
        self.frame_of[page] = frame
        frame.pages.add(page)

    def reject(self, page: Page) -> None:
        self.done.collisions += 1
        self.ineligible.add(page)

    def hint(self, page: Page, key: Key) -> None:
        self.hints[key] = page
        self.hint_of[page] = key

    def forget_hint(self, page: Page) -> None:
        if page in self.hint_of:
            del self.hints[self.hint_of.pop(page)]

    def make_large(self, vm: int, number: int) -> None:
        """Before its pages were scanned; the numbers are of aligned ranges of pages_of_large pages."""
        self.large.add((vm, number))

    def break_large(self, vm: int, number: int) -> None:
        """It is of small pages from now on."""
        self.large.remove((vm, number))
        first = number * self.pages_of_large
        for gpn in range(first, first + self.pages_of_large):
            if self.large_hint_of.pop((vm, gpn), None):
                self.look_at((vm, gpn))

    def key(self, page: Page, content: int) -> Key:
        return self.salts[page[0]], self.hash_of(content)

    def counts(self) -> Counts:
        shared, common = len(self.frame_of), len(self.frames)
        zero = sum(frame.content == 0 for frame in self.frame_of.values())
        return Counts(zero, shared, common, shared - common, len(self.hint_of) + len(self.large_hint_of))

    def check(self) -> None:
        """What is always so."""
        assert not self.private.keys() & self.frame_of.keys()
        assert not self.hints.keys() & self.frames.keys()
        assert {page: key for key, page in self.hints.items()} == self.hint_of
        assert self.hint_of.keys() | self.large_hint_of.keys() | self.ineligible <= self.private.keys()
        assert not self.ineligible & self.hint_of.keys()
        for key, frame in self.frames.items():
            assert frame.pages and all(self.frame_of[page] is frame for page in frame.pages)
            assert {self.key(page, frame.content) for page in frame.pages} == {key}
        assert sum(len(frame.pages) for frame in self.frames.values()) == len(self.frame_of)


def scan_rates(
    vm_pages: Sequence[int],
    *,
    cpu_ghz: Fraction | float,
    share_scan_time: int = 60,
    share_scan_ghz: int = 4,
    share_rate_max: int = 1024,
    page_size: int = 4096,
) -> list[Fraction]:
    """Pages a second of each virtual machine: its own two limits, then that of the host, which scales all alike.

    share_scan_time: minutes for all pages of one. share_rate_max: pages a second of one. share_scan_ghz: MB a
    second of all of them for each GHz of the host's CPUs.
    """
    if not (share_scan_time and share_rate_max):
        return [Fraction(0) for _ in vm_pages]
    rates = [min(Fraction(pages, share_scan_time * 60), Fraction(share_rate_max)) for pages in vm_pages]
    most = share_scan_ghz * Fraction(cpu_ghz) * 2**20 / page_size
    scale = min(Fraction(1), most / sum(rates)) if any(rates) else Fraction(1)
    return [rate * scale for rate in rates]


class Pace:
    """How many whole pages of each virtual machine are due; what is left of a page counts the next time."""

    def __init__(self) -> None:
        self.left: list[Fraction] = []

    def due(self, rates: Sequence[Fraction], seconds: Fraction | float) -> list[int]:
        self.left += [Fraction(0)] * (len(rates) - len(self.left))
        total = [left + rate * Fraction(seconds) for left, rate in zip(self.left, rates, strict=True)]
        self.left = [amount % 1 for amount in total]
        return [int(amount) for amount in total]
