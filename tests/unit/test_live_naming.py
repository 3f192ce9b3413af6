"""Live pages named by their contents, against a dictionary of their bytes: still, moving, gone, of equal hashes."""

import ctypes
import mmap
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import dedupcore
import pagedup
from pagedup.memory import AnyExtent, Extent, LiveOptions, LiveSource, NamedExtent
from pagedup.memory.files.filetree import open_tree
from pagedup.memory.live import naming
from pagedup.memory.live import take as take_module
from pagedup.memory.live.live_source import Place
from pagedup.memory.live.smaps import Mapping
from pagedup.memory.live.take import take
from pagedup.sharing import explain
from pagedup.sharing.watch import Watch
from tests.collisions import key_words, swapped

PAGE = mmap.PAGESIZE
SEED = 5
MAP_FIXED = 0x10
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long)


OPEN: list[LiveSource] = []


class Part(LiveSource):
    """A part of this very process's memory, as if it were another's: it can be changed at any moment of the reading."""

    kind = "test"

    def __init__(self, contents: list[bytes]) -> None:
        super().__init__(f"part{id(self)}", "part", os.getpid())
        OPEN.append(self)
        self.memory = mmap.mmap(-1, (len(contents) + 2) * PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self.memory.madvise(mmap.MADV_NOHUGEPAGE)
        view = np.frombuffer(self.memory, np.uint8)
        self.begin = view.ctypes.data + PAGE  # the pages around it are never touched
        self.rows = view[PAGE:-PAGE].reshape(-1, PAGE)
        for page, content in zip(self.rows, contents, strict=True):
            page[:] = np.frombuffer(content, np.uint8)

    def places(self, mappings: list[Mapping]) -> list[Place]:
        end = self.begin + self.rows.nbytes
        return [
            Place(mapping, max(mapping.start, self.begin), min(mapping.end, end), -self.begin, "part")
            for mapping in mappings
            if mapping.start < end and mapping.end > self.begin
        ]

    def lose(self, index: int) -> None:
        """In the place of a page comes one that cannot be read: beyond the end of a file."""
        fd = os.memfd_create("empty")
        at = self.begin + index * PAGE
        assert libc.mmap(at, PAGE, mmap.PROT_READ, mmap.MAP_SHARED | MAP_FIXED, fd, 0) == at
        os.close(fd)


@pytest.fixture(autouse=True)
def known_key() -> Iterator[None]:
    dedupcore.set_key(SEED)
    yield
    dedupcore.set_key(None)
    while OPEN:
        OPEN.pop().close()


def before(phase: str, act: Callable[[], None], times: int = 1) -> Callable[[], None]:
    """Act when this phase of reading begins, so many times; returns what undoes it."""
    real = LiveSource.read
    calls: list[str] = []

    def read(self, begun, wanted, visit, into, progress):
        if begun == phase and len(calls) < times:
            calls.append(begun)
            act()
        return real(self, begun, wanted, visit, into, progress)

    LiveSource.read = read  # type: ignore[method-assign]

    def undo() -> None:
        LiveSource.read = real  # type: ignore[method-assign]

    return undo


def taken(parts: list[Part], **options: object) -> None:
    take(parts, LiveOptions(**options), frame_size=PAGE, alone=True)  # type: ignore[arg-type]


def classes(parts: list[Part]) -> list[int]:
    """The canonical page of each page, page by page; -1 for one that was left out."""
    found = pagedup.find_duplicates([part.extents for part in parts])
    bounds = np.cumsum([0] + [len(part.rows) for part in parts])
    numbers = np.concatenate(
        [bounds[g] + found.addresses[slice(*found.guest_offsets[g : g + 2])] // PAGE for g in range(len(parts))]
    ).astype(np.int64)
    told = np.full(bounds[-1], -1)
    told[numbers] = numbers[found.canonical]
    return list(map(int, told))


def addresses(part: Part) -> NDArray[np.uint64]:
    return np.arange(len(part.rows), dtype=np.uint64) * np.uint64(PAGE)


def by_dictionary(pages: list[bytes]) -> list[int]:
    lowest: dict[bytes, int] = {}
    return [lowest.setdefault(page, index) for index, page in enumerate(pages)]


def content(letter: str) -> bytes:
    return bytes(PAGE) if letter == "." else (letter * 7).encode().ljust(PAGE, letter.lower().encode())


def parts_of(*texts: str) -> list[Part]:
    return [Part([content(letter) for letter in text]) for text in texts]


LETTERS = st.lists(st.text(alphabet="..ABCDEFGHIJ", max_size=12), min_size=1, max_size=4)


@settings(max_examples=60, deadline=None)
@given(LETTERS)
def test_still_memory_is_grouped_by_its_bytes(texts: list[str]) -> None:
    parts = parts_of(*texts)
    taken(parts)
    pages = [content(letter) for text in texts for letter in text]
    assert classes(parts) == by_dictionary(pages)
    found = pagedup.find_duplicates([part.extents for part in parts])
    whole = pagedup.find_duplicates([[Extent(0, part.rows.reshape(-1).data)] for part in parts])
    for factor in (1, 2, 4):
        by_names = pagedup.find_duplicates([part.extents for part in parts], frame_size=PAGE) if factor == 1 else found
        assert pagedup.summarize(by_names.coarsen(factor)) == pagedup.summarize(whole.coarsen(factor))
        assert np.array_equal(by_names.coarsen(factor).canonical, whole.coarsen(factor).canonical)


def test_domains_and_larger_frames() -> None:
    parts = parts_of("AB.AABAB", "AB..ABAB", "CB.AABAB")
    taken(parts)
    names, whole = [part.extents for part in parts], [part.rows.reshape(-1) for part in parts]
    for options in ({}, {"domains": ["x", "y", "x"]}, {"frame_size": 2 * PAGE}, {"frame_size": 4 * PAGE}):
        found = pagedup.find_duplicates(names, **options)
        wanted = pagedup.find_duplicates(whole, **options)
        assert np.array_equal(found.canonical, wanted.canonical)
        assert (found.n_zero, found.n_distinct) == (wanted.n_zero, wanted.n_distinct)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_pages_that_change_meanwhile(data: st.DataObject) -> None:
    texts = data.draw(LETTERS)
    phase = data.draw(st.sampled_from(["copying", "comparing"]))
    n = sum(map(len, texts))
    edits = data.draw(st.dictionaries(st.integers(0, max(0, n - 1)), st.sampled_from("..ABCDEFGHIJxyz"), max_size=n))
    parts = parts_of(*texts)
    rows = [row for part in parts for row in part.rows]
    old = "".join(texts)

    def edit() -> None:
        for index, letter in edits.items():
            if index < n:
                rows[index][:] = np.frombuffer(content(letter), np.uint8)

    undo = before(phase, edit)
    try:
        taken(parts)
    finally:
        undo()
    told = classes(parts)
    moved = np.concatenate(
        [part.moved(np.arange(len(part.rows), dtype=np.uint64) * np.uint64(PAGE)) for part in parts]
    )
    assert {i for i in range(n) if moved[i]} <= {i for i in edits if i < n and edits[i] != old[i]}
    for i in range(n):
        if moved[i]:
            assert told.count(told[i]) == 1, "nobody knows what it will hold"
        else:
            # As it was when it was hashed, among all that have not moved.
            assert told[i] == min(k for k in range(n) if old[k] == old[i] and not moved[k])


def test_what_moved_is_watched() -> None:
    parts = parts_of("AABB..CD", "ABX")

    def edit() -> None:
        for index in (0, 3, 4, 6):  # a lead, a member, a zero page, and one that stands alone
            parts[0].rows[index, 9] = 7

    undo = before("copying", edit)
    try:
        taken(parts)
    finally:
        undo()
    found = pagedup.find_duplicates([part.extents for part in parts])
    watch = Watch(parts, found)
    watch.look(1, 0)
    assert np.flatnonzero(watch.volatile(found)).tolist() == [0, 3, 4]
    volatility = watch.volatility()
    assert volatility is not None
    # Pages that share content, or seemed to: A A B B . . and A B.
    assert (volatility.pages, volatility.changed, volatility.changed_zero) == (8, 3, 1)
    assert (watch.looks[0].changed, watch.looks[0].unchanged) == (3, 5)
    watch.look(1, 1e-6)
    assert watch.looks[1].changed == 0


def test_a_frozen_process_is_looked_at_again() -> None:
    """Between hashing and comparing nothing could move, so that is no look."""
    parts = parts_of("AA..B")
    naming_run = naming.Naming(_hashed(parts))
    naming_run.run(lambda size: np.zeros(size, np.uint8), frozen=True)
    parts[0].rows[1, 5] = 9
    found = pagedup.find_duplicates([part.extents for part in parts])
    watch = Watch(parts, found)
    watch.look(1, 0)
    assert np.flatnonzero(watch.volatile(found)).tolist() == [1]


def _hashed(parts: list[Part]) -> list[Part]:
    for part in parts:
        part.survey()
        part.hash()
    return parts


@pytest.mark.parametrize("phase", ["reading", "copying", "comparing", "looking again at"])
@pytest.mark.parametrize("lost", range(6))
def test_pages_that_go_away_meanwhile(phase: str, lost: int) -> None:
    parts = parts_of("AB.ABC", "BAB")
    undo = before(phase, lambda: parts[0].lose(lost))
    try:
        taken(parts)
        told = classes(parts)
        left = [i for i in range(9) if told[i] >= 0]
        # It is left out if it was read once more; and then its content is as often there as others hold it.
        assert set(range(9)) - set(left) <= {lost}
        letters = "AB.ABCBAB"
        assert [told[i] for i in left] == [min(k for k in left if letters[k] == letters[i]) for i in left]
        assert [part.size for part in parts] == [PAGE * len(set(own) & set(left)) for own in (range(6), range(6, 9))]
        found = pagedup.find_duplicates([part.extents for part in parts])
        watch = Watch(parts, found)
        watch.look(1, 1e-6)
        changed = {int(at) // PAGE for at in found.addresses[watch.volatile(found)]}
        matched = lost in left and letters[lost] != "C"
        assert changed == ({lost} if matched and told.count(told[lost]) + (letters[lost] == ".") > 1 else set())
    finally:
        undo()


def test_pages_that_share_a_hash_by_chance() -> None:
    """In every order, with copies of each; some alone, so that only comparing tells."""
    key = key_words(SEED)
    first = np.random.default_rng(1).bytes(PAGE)
    contents = [first, swapped(first, 320, key, 0), swapped(first, 1600, key, 0), bytes(PAGE)]
    contents.append(swapped(contents[1], 1600, key, 0))
    hashes = np.zeros(5, np.uint64)
    dedupcore.hash_frames(b"".join(contents), PAGE, hashes)
    assert len(set(hashes.tolist())) == 2
    for order in ("01", "01243", "10102432", "421001244", "001", "1003"):
        pages = [contents[int(digit)] for digit in order]
        for cut in (0, 1, len(pages)):
            parts = [Part(pages[:cut]), Part(pages[cut:])]
            taken(parts)
            assert classes(parts) == by_dictionary(pages)
            assert not any(part.moved(addresses(part)).any() for part in parts)


def test_what_moves_all_the_time_comes_to_an_end() -> None:
    """Whichever page leads has moved when it is copied."""
    parts = parts_of("A" * 40 + "BB")
    turn = iter(range(40))
    undo = before("copying", lambda: parts[0].rows.__setitem__((next(turn), 3), 1), times=100)
    try:
        taken(parts)
    finally:
        undo()
    told = classes(parts)
    assert told[40:] == [40, 40]
    assert len(set(told[: naming._MAX_ROUNDS])) == naming._MAX_ROUNDS
    assert next(turn) == naming._MAX_ROUNDS


def test_bytes_are_kept_of_what_repeats() -> None:
    parts = parts_of("AB.ABC", "BAB")
    taken(parts)
    (extent,) = parts[1].extents
    assert isinstance(extent, NamedExtent)
    spans = extent.contents.find(extent.names)
    told = b"".join(np.asarray(buffer)[at : at + n * PAGE].tobytes() for buffer, at, n in spans)
    assert told == content("B") + content("A") + content("B")
    (other,) = parts[0].extents
    assert isinstance(other, NamedExtent)
    with pytest.raises(KeyError):
        other.contents.find(other.names[5:])
    kept = {id(buffer): np.asarray(buffer).nbytes for buffer, _, _ in spans}
    assert sum(kept.values()) == 2 * PAGE


def test_files_explain_named_pages_as_they_do_bytes(tmp_path: Path) -> None:
    for name, text in (("one", "AXB"), ("two", "CBD."), ("three", "DD")):
        (tmp_path / name).write_bytes(b"".join(map(content, text)))
    parts = parts_of("AB.ABCE", "BADDE", "..D")
    taken(parts)
    explained = []
    for memory in ([part.extents for part in parts], [[Extent(0, part.rows.reshape(-1).data)] for part in parts]):
        with open_tree(str(tmp_path)) as tree:
            explained.append(explain(pagedup.find_duplicates(memory), memory, tree))
    assert explained[0] == explained[1]
    assert (explained[0].contents, explained[0].explained_contents) == (4, 3)


def test_names_and_bytes_are_not_compared() -> None:
    one, other = parts_of("AB"), parts_of("AB")
    taken(one)
    taken(other)
    memories: list[list[list[AnyExtent]]] = [
        [one[0].extents, [Extent(0, bytes(PAGE))]],
        [one[0].extents, other[0].extents],
    ]
    for memory in memories:
        with pytest.raises(ValueError, match=r"guest 1: the extent at 0x0 cannot be compared with names of pages"):
            pagedup.find_duplicates(memory)
    with pytest.raises(ValueError, match="only the names are known"):
        pagedup.find_duplicates(one[0].extents, frame_size=512)
    with pytest.raises(ValueError, match="no multiple of the frame size"):
        pagedup.find_duplicates(one[0].extents, frame_size=4 * PAGE)
    hole: list[AnyExtent] = [pagedup.ZeroExtent(0, 3 * PAGE)]
    mixed = pagedup.find_duplicates([one[0].extents, hole])
    assert (mixed.n_frames, mixed.n_zero, mixed.n_distinct) == (5, 3, 2)


def test_what_does_not_fit_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What repeats is known after a first reading; what is needed in any case, before it."""
    texts = ("ABAB.C", "ADA")
    beside, kept = 9 * 80 + (16 << 20), 2 * PAGE
    monkeypatch.setattr(take_module, "available_memory", lambda: beside + kept)
    taken(parts_of(*texts))
    monkeypatch.setattr(take_module, "available_memory", lambda: beside + kept - 1)
    folder = rf"give --spool DIR, a folder with {kept:,} bytes free, or scan fewer at once"
    what = rf"part[0-9]+, part[0-9]+: scanning takes {beside + kept:,} bytes of memory, and {beside + kept - 1:,} are"
    with pytest.raises(OSError, match=f"{what} available; {folder}"):
        taken(parts_of(*texts))
    parts = parts_of(*texts)
    taken(parts, spool=str(tmp_path))
    assert classes(parts) == by_dictionary([content(letter) for letter in "".join(texts)])
    undo = before("reading", lambda: pytest.fail("what cannot fit at all is not even read"))
    monkeypatch.setattr(take_module, "available_memory", lambda: beside - 1)
    try:
        with pytest.raises(OSError, match=rf"scanning takes {beside:,} bytes .* available; scan fewer at once"):
            taken(parts_of(*texts))
    finally:
        undo()


def test_a_spool_that_is_no_folder_is_told_before_reading(tmp_path: Path) -> None:
    undo = before("reading", lambda: pytest.fail("nothing is read"))
    try:
        with pytest.raises(FileNotFoundError):
            taken(parts_of("AB"), spool=str(tmp_path / "none"))
    finally:
        undo()


def test_nothing_at_all() -> None:
    parts = parts_of("", "", "A")
    taken(parts)
    assert classes(parts) == [0]
    assert parts[0].extents == []
