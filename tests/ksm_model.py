"""The oracle of KSM: what Linux 6.18 does at each visit of a page, as plainly as can be.

A content is anything that can be told from others, 0 if it is zero.
"""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field

PAGE, ITEM = 4096, 64  # bytes


@dataclass(eq=False)
class Shared:
    """A page that others map: a stable node. An item hangs on until its page is visited, or found gone."""

    content: Hashable
    items: list["Item"] = field(default_factory=list)
    mapped: int = 0


@dataclass(eq=False)
class Item:
    """What is remembered of a page, from its first visit until a pass goes by where there is none."""

    age: int = 0
    skips_left: int = 0
    checksum: Hashable = None  # of the content that was seen last
    shared: Shared | None = None
    unshared: bool = False  # in the unstable tree


@dataclass(eq=False)
class Page:
    """What a guest has at an address."""

    content: Hashable = None  # None: no page
    shared: Shared | None = None
    merged_zero: bool = False
    item: Item | None = None


class KsmModel:
    """Guests, scanned one after the other, each from its first page to its last."""

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        pages_to_scan: int = 100,
        max_page_sharing: int = 256,
        use_zero_pages: bool = False,
        smart_scan: bool = True,
        fullest: bool = True,
        at_once: bool = False,
        zeros: Collection[Hashable] = (0,),
    ) -> None:
        """As stable_node_chains_prune_millisecs says a page joins the fullest shared page that has room, or the first.

        at_once: as in a FramePool a page that is written or released leaves the others there and then; in the kernel it
        is when its visit is due.
        """
        self.pages_to_scan = pages_to_scan
        self.max_page_sharing, self.use_zero_pages, self.smart_scan = max_page_sharing, use_zero_pages, smart_scan
        self.fullest, self.at_once, self.zeros = fullest, at_once, zeros
        self.choose: Callable[[Page, Sequence[Shared]], Shared] = lambda page, equally_good: equally_good[0]
        self.guests = [[Page() for _ in range(size)] for size in sizes]
        self.stable: defaultdict[Hashable, list[Shared]] = defaultdict(list)
        self.chains: set[Hashable] = set()  # contents that had more than one shared page when last looked up
        self.unstable: dict[Hashable, Page] = {}
        self.pages_skipped = self.pages_scanned = self.full_scans = 0
        self.pages_checksummed = self.stable_searches = self.unstable_searches = 0
        self._visits = self._endless_visits()

    def write(self, guest: int, gpn: int, content: Hashable) -> None:
        """A page of its own, whatever was there."""
        page = self.guests[guest][gpn]
        self._unmap(page)
        page.content = content

    def release(self, guest: int, gpn: int) -> None:
        """No page is left, but what is remembered of it."""
        page = self.guests[guest][gpn]
        self._unmap(page)
        if self.at_once and self.unstable.get(page.content) is page:
            del self.unstable[page.content]
        page.content = None

    def _unmap(self, page: Page) -> None:
        if page.shared:
            page.shared.mapped -= 1
        if self.at_once and page.item:
            self._leave(page.item)
        page.shared, page.merged_zero = None, False

    def wake(self) -> bool:
        """Visit so many pages; whether the pass has ended, which it does where one more is looked for in vain."""
        return not all(next(self._visits) for _ in range(self.pages_to_scan))

    def full_scan(self) -> None:
        """Go on to the end of the pass."""
        while next(self._visits):
            pass

    def counters(self) -> dict[str, int]:
        """By the kernel's names."""
        pages = [page for guest in self.guests for page in guest]
        items = [page.item for page in pages if page.item]
        shared = {item.shared for item in items if item.shared}
        hanging = sum(item.shared is not None for item in items)
        unshared = sum(item.unshared for item in items)
        sharing, zero = hanging - len(shared), sum(page.merged_zero for page in pages)
        return {
            "pages_shared": len(shared),
            "pages_sharing": sharing,
            "pages_unshared": unshared,
            "pages_volatile": len(items) - hanging - unshared,
            "ksm_zero_pages": zero,
            "pages_skipped": self.pages_skipped,
            "pages_scanned": self.pages_scanned,
            "full_scans": self.full_scans,
            "stable_node_chains": len(self.chains),
            "stable_node_dups": sum(len(self.stable[content]) for content in self.chains),
            "general_profit": (sharing + zero) * PAGE - len(items) * ITEM,
        }

    def work(self) -> dict[str, int]:
        """What the visits were, which the kernel does not count."""
        return {
            "pages_checksummed": self.pages_checksummed,
            "stable_searches": self.stable_searches,
            "unstable_searches": self.unstable_searches,
        }

    def _endless_visits(self) -> Iterator[bool]:
        """True after each visit, False after each pass."""
        while True:
            self.unstable.clear()
            for guest in self.guests:
                gone: list[Page] = []
                for page in guest:
                    if page.content is None or page.merged_zero:
                        gone.append(page)
                        continue
                    self._forget(gone)
                    page.item = page.item or Item()
                    if self._is_skipped(page, page.item):
                        self._leave(page.item)
                        continue
                    self._visit(page, page.item)
                    self.pages_scanned += 1
                    yield True
                self._forget(gone)
            self.full_scans += 1
            yield False

    def _forget(self, gone: list[Page]) -> None:
        """The pass has come to a page behind these."""
        for page in gone:
            if page.item:
                self._leave(page.item)
                page.item = None
        gone.clear()

    def _is_skipped(self, page: Page, item: Item) -> bool:
        """Smart scan: what has been visited in vain for long is left out for some passes."""
        if not self.smart_scan or page.shared:
            return False
        age = item.age
        item.age = min(age + 1, 255)
        if age < 3:
            return False
        if item.skips_left == 0:
            item.skips_left = 1 if age <= 3 else 2 if age <= 5 else 4 if age <= 8 else 8
            return False
        item.skips_left -= 1
        self.pages_skipped += 1
        return True

    def _visit(self, page: Page, item: Item) -> None:
        if page.shared:
            return
        self._leave(item)
        self.pages_checksummed += 1
        if item.checksum != page.content:
            item.checksum = page.content
            return
        if self.use_zero_pages and page.content in self.zeros:
            page.merged_zero = True
            return
        self.stable_searches += 1
        shared = self._with_room(page)
        if shared:
            self._join(page, shared)
            return
        self.unstable_searches += 1
        twin = self.unstable.pop(page.content, None)
        if twin is None or twin.content != page.content:
            self.unstable[page.content] = page
            item.unshared = True
            return
        shared = Shared(page.content)
        if self.stable[page.content]:
            self.chains.add(page.content)
        self.stable[page.content].insert(0, shared)
        self._join(twin, shared)
        self._join(page, shared)

    def _with_room(self, page: Page) -> Shared | None:
        """The shared page of this content that one more may map."""
        dups = self.stable[page.content]
        open_: list[Shared] = []
        for shared in list(dups):
            if not shared.mapped:
                self._drop(shared)
            elif len(shared.items) < self.max_page_sharing:
                open_.append(shared)
                if not self.fullest:
                    break
        if len(dups) < 2:
            self.chains.discard(page.content)
        if not open_:
            return None
        most = max(len(shared.items) for shared in open_)
        found = self.choose(page, [shared for shared in open_ if len(shared.items) == most])
        if most + 1 < self.max_page_sharing:
            dups.remove(found)
            dups.insert(0, found)
        return found

    def _join(self, page: Page, shared: Shared) -> None:
        assert page.item
        page.item.unshared = False
        page.item.shared = page.shared = shared
        shared.items.append(page.item)
        shared.mapped += 1

    def _leave(self, item: Item) -> None:
        """It is in no tree any more. A shared page that no page maps goes with all that hang on it."""
        item.unshared = False
        if item.shared and item.shared.mapped:
            item.shared.items.remove(item)
            item.shared = None
        elif item.shared:
            self._drop(item.shared)

    def _drop(self, shared: Shared) -> None:
        for item in shared.items:
            item.shared = None
        self.stable[shared.content].remove(shared)
