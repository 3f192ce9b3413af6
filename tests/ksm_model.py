"""The oracle of KSM: what Linux 6.18 does at each visit of a page, as plainly as can be; contents are numbers."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

ZERO = 0
PAGE, ITEM = 4096, 64  # bytes


@dataclass(eq=False)
class Shared:
    """A page that others map: a stable node. An item hangs on until its page is visited, or found gone."""

    content: int
    items: list["Item"] = field(default_factory=list)
    mapped: int = 0


@dataclass(eq=False)
class Item:
    """What is remembered of a page, from its first visit until a pass goes by where there is none."""

    age: int = 0
    skips_left: int = 0
    checksum: int | None = None  # of the content that was seen last
    shared: Shared | None = None
    unshared: bool = False  # in the unstable tree


@dataclass(eq=False)
class Page:
    """What a guest has at an address."""

    content: int | None = None  # None: no page
    shared: Shared | None = None
    merged_zero: bool = False
    item: Item | None = None


class KsmModel:
    """Guests, scanned one after the other, each from its first page to its last."""

    def __init__(
        self,
        sizes: Sequence[int],
        *,
        max_page_sharing: int = 256,
        use_zero_pages: bool = False,
        smart_scan: bool = True,
        fullest: bool = True,
    ) -> None:
        self.max_page_sharing, self.use_zero_pages, self.smart_scan = max_page_sharing, use_zero_pages, smart_scan
        self.fullest = fullest
        self.guests = [[Page() for _ in range(size)] for size in sizes]
        self.stable: defaultdict[int, list[Shared]] = defaultdict(list)
        self.chains: set[int] = set()  # contents that had more than one shared page when last looked up
        self.unstable: dict[int, Page] = {}
        self.pages_skipped = self.pages_scanned = self.full_scans = 0
        self._visits = self._endless_visits()

    def write(self, guest: int, gpn: int, content: int) -> None:
        """A page of its own, whatever was there."""
        self.release(guest, gpn)
        self.guests[guest][gpn].content = content

    def release(self, guest: int, gpn: int) -> None:
        """No page is left, but what is remembered of it."""
        page = self.guests[guest][gpn]
        if page.shared:
            page.shared.mapped -= 1
        page.content, page.shared, page.merged_zero = None, None, False

    def wake(self, pages_to_scan: int = 1) -> bool:
        """Visit so many pages; whether the pass has ended, which it does where one more is looked for in vain."""
        return not all(next(self._visits) for _ in range(pages_to_scan))

    def full_scan(self) -> None:
        """Go on to the end of the pass."""
        while not self.wake():
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
        assert page.content is not None
        if item.checksum != page.content:
            item.checksum = page.content
            return
        if self.use_zero_pages and page.content == ZERO:
            page.merged_zero = True
            return
        shared = self._with_room(page.content)
        if shared:
            self._join(page, shared)
            return
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

    def _with_room(self, content: int) -> Shared | None:
        """The shared page of this content that one more may map."""
        dups = self.stable[content]
        found: Shared | None = None
        for shared in list(dups):
            n = len(shared.items)
            if not shared.mapped:
                self._drop(shared)
            elif n < self.max_page_sharing and (found is None or n > len(found.items)):
                found = shared
                if not self.fullest:
                    break
        if len(dups) < 2:
            self.chains.discard(content)
        if found and len(found.items) + 1 < self.max_page_sharing:
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
