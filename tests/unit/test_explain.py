"""Which files shared pages come from: real files in made guests, against a dictionary of their pages."""

import os
import sysconfig
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pagedup
from pagedup import Extent, ZeroExtent
from pagedup.memory.files.filetree import Directory, FileTree, Piece, open_tree
from pagedup.sharing import Explanation, FileShare, explain
from pagedup.sharing import explain as explain_function
from tests.processes import run_python

PAGE = 4096
LIBRARY = Path(sysconfig.get_path("stdlib")) / "email"
explain_module: Any = __import__("sys").modules[explain_function.__module__]


def pages_of(path: Path) -> list[bytes]:
    """As the page cache holds them."""
    data = path.read_bytes()
    return [data[at : at + PAGE].ljust(PAGE, b"\0") for at in range(0, len(data), PAGE)]


def files_under(folder: Path) -> list[Path]:
    return sorted((path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()), key=str)


def noise(rng: np.random.Generator, n: int) -> list[bytes]:
    return [rng.bytes(PAGE) for _ in range(n)]


def guests_of(folder: Path) -> list[list[bytes]]:
    """Three guests of pages of these files, zero pages, pages alone, and pages that are shared but of no file."""
    rng = np.random.default_rng(1)
    cache = [page for path in files_under(folder) for page in pages_of(path)]
    common = noise(rng, 20)
    guests = []
    for part in (1.0, 0.7, 0.3):
        pages = [page for page in cache if rng.random() < part] + common + noise(rng, 50) + [bytes(PAGE)] * 30
        guests.append([pages[i] for i in rng.permutation(len(pages))])
    return guests


def by_dictionary(folder: Path, guests: list[list[bytes]]) -> dict[str, Any]:
    copies = Counter(page for guest in guests for page in guest if any(page))
    shared = {page: n for page, n in copies.items() if n > 1}
    holders: dict[bytes, list[str]] = {}
    for path in files_under(folder):
        for page in dict.fromkeys(pages_of(path)):
            holders.setdefault(page, []).append(str(path.relative_to(folder)))
    rows: dict[str, list[int]] = {}
    for page, n in shared.items():
        if page in holders:
            row = rows.setdefault(holders[page][0], [0, 0])
            row[0] += 1
            row[1] += n
    files = [FileShare(path, contents, n, (n - contents) * PAGE) for path, (contents, n) in rows.items()]
    return {
        "contents": len(shared),
        "explained_contents": sum(page in holders for page in shared),
        "in_several_files": sum(len(holders.get(page, ())) > 1 for page in shared),
        "saved_bytes": sum(n - 1 for n in shared.values()) * PAGE,
        "explained_bytes": sum(file.saved_bytes for file in files),
        "by_file": sorted(files, key=lambda file: (-file.saved_bytes, file.path)),
    }


def explained(guests: list[list[bytes]], root: Path | str, **options: Any) -> Explanation:
    memory = [[Extent(1 << 20, b"".join(guest))] for guest in guests]
    with open_tree(str(root)) as tree:
        return explain(pagedup.find_duplicates(memory), memory, tree, **options)


def check(found: Explanation, wanted: dict[str, Any]) -> None:
    assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize("batch", [1, 7, 64 << 8])
@pytest.mark.parametrize("threads", [1, 3])
def test_real_files(batch: int, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain_module, "_BATCH", batch * PAGE)
    guests = guests_of(LIBRARY)
    wanted = by_dictionary(LIBRARY, guests)
    assert wanted["explained_contents"] > 100 and wanted["contents"] > wanted["explained_contents"]
    calls: list[tuple[str, int, int]] = []
    found = explained(guests, LIBRARY, threads=threads, progress=lambda *call: calls.append(call))
    check(found, wanted)
    files = [path for path in files_under(LIBRARY) if path.stat().st_size]
    assert (found.root, found.files, found.unreadable) == (str(LIBRARY), len(files), 0)
    assert found.bytes == sum(len(pages_of(path)) for path in files) * PAGE
    total = sum(path.stat().st_size for path in files)
    assert calls[0] == ("reading files", 0, total) and calls[-1] == ("reading files", total, total)
    assert [done for _, done, _ in calls] == sorted(done for _, done, _ in calls)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Files of known contents in directories of several levels."""
    root = tmp_path / "tree"
    for name, text in {
        "usr/lib/deep/er/a": "a",
        "usr/lib/b": "b",
        "usr/share/ab": "ab",
        "boot": "k",
        "usr/tail": "t",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"".join(letter.encode() * PAGE for letter in text))
    (root / "usr/tail").write_bytes(b"t" * 100)
    (root / "empty").touch()
    return root


def letters(*texts: str) -> list[list[bytes]]:
    return [[letter.encode() * PAGE for letter in text] for text in texts]


def test_directories_are_summed_to_two_levels(tree: Path) -> None:
    found = explained(letters("aabk", "abkxx"), tree)
    assert found.by_directory == [
        FileShare("usr/lib", 2, 5, 3 * PAGE),
        FileShare(".", 1, 2, PAGE),
    ]
    assert [file.path for file in found.by_file] == ["usr/lib/deep/er/a", "boot", "usr/lib/b"]
    assert found.in_several_files == 2  # usr/share/ab holds them, too
    assert (found.saved_bytes, found.explained_bytes) == (5 * PAGE, 4 * PAGE)


def test_the_last_page_is_filled_up_with_zeros(tree: Path) -> None:
    page = b"t" * 100 + bytes(PAGE - 100)
    assert explained([[page, page], [page]], tree).by_file == [FileShare("usr/tail", 1, 3, 2 * PAGE)]


def test_a_tail_is_not_what_stood_there_before(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The buffer is used again and again."""
    monkeypatch.setattr(explain_module, "_BATCH", PAGE)
    page = b"t" * 100 + bytes(PAGE - 100)
    assert explained([[page], [page]], tree).explained_contents == 1


def test_links(tree: Path) -> None:
    os.link(tree / "boot", tree / "a-second-name")
    (tree / "a-link").symlink_to("usr/share/ab")
    (tree / "a-loop").symlink_to(".")
    found = explained(letters("kk", "aa"), tree)
    assert [file.path for file in found.by_file] == ["a-second-name", "usr/lib/deep/er/a"]
    assert found.files == 5 and found.in_several_files == 1


def test_pipes_and_sockets_are_not_waited_for(tree: Path) -> None:
    os.mkfifo(tree / "pipe")
    os.mkfifo(tree / "usr/pipe")
    assert explained(letters("aa"), tree).files == 5


def test_holes_are_not_read(tree: Path) -> None:
    with open(tree / "sparse", "wb") as file:
        file.truncate(1 << 40)
        file.seek((1 << 39) + 5)
        file.write(b"s")
    page = bytes(5) + b"s" + bytes(PAGE - 6)
    found = explained([[page, page]], tree)
    assert found.by_file == [FileShare("sparse", 1, 2, PAGE)]
    assert found.bytes < 1 << 24


def test_nothing_shared_and_nothing_there(tree: Path, tmp_path: Path) -> None:
    assert explained(letters("abc"), tree).contents == 0
    assert explained([[], []], tree).explained_contents == 0
    (tmp_path / "empty").mkdir()
    found = explained(letters("aa"), tmp_path / "empty")
    assert (found.files, found.bytes, found.by_file, found.by_directory) == (0, 0, [], [])
    assert (found.saved_bytes, found.explained_bytes) == (PAGE, 0)


def test_domains_share_apart(tree: Path) -> None:
    memory = [[Extent(0, b"".join(guest))] for guest in letters("aa.", "aab")]
    with open_tree(str(tree)) as files:
        found = explain(pagedup.find_duplicates(memory, domains="xy"), memory, files)
    assert found.contents == 2 and found.by_file == [FileShare("usr/lib/deep/er/a", 2, 4, 2 * PAGE)]


def test_guests_with_gaps_and_holes(tree: Path) -> None:
    a, b = b"a" * PAGE, b"b" * PAGE
    memory: list[list[Extent | ZeroExtent]] = [
        [Extent(0, a + b + a), Extent(3 * PAGE, b""), ZeroExtent(3 * PAGE, 2 * PAGE), Extent(5 * PAGE, b + a)],
        [ZeroExtent(0, PAGE), Extent(1 << 40, memoryview(b"xx" + a + b)[2:])],
    ]
    # Shared pages that follow each other in number, and lie in two buffers.
    with open_tree(str(tree)) as files:
        apart = [[Extent(0, a), Extent(PAGE, b)], [Extent(0, a + b)]]
        assert explain(pagedup.find_duplicates(apart), apart, files).explained_contents == 2
    with open_tree(str(tree)) as files:
        found = explain(pagedup.find_duplicates(memory), memory, files)
    assert {file.path: file.copies for file in found.by_file} == {"usr/lib/deep/er/a": 4, "usr/lib/b": 3}


def test_wrong_arguments(tree: Path) -> None:
    memory = [[Extent(0, bytes(8 * PAGE))]]
    with Directory(str(tree)) as files:
        with pytest.raises(ValueError, match="frames are of 8,192 bytes; files are compared in pages of 4,096"):
            explain(pagedup.find_duplicates(memory).coarsen(2), memory, files)
        with pytest.raises(ValueError, match="is not of this memory"):
            explain(pagedup.find_duplicates(memory), [[Extent(PAGE, bytes(8 * PAGE))]], files)


def test_a_file_that_shrinks_or_goes_while_it_is_read(tree: Path) -> None:
    with Directory(str(tree)) as files:
        (tree / "boot").unlink()
        (tree / "usr/lib/b").write_bytes(b"")
        (tree / "usr/share/ab").unlink()
        (tree / "usr/share/ab").symlink_to("/etc/passwd")
        (tree / "usr/lib/deep/er/a").unlink()
        os.mkfifo(tree / "usr/lib/deep/er/a")
        memory = [[Extent(0, b"t" * 100 + bytes(PAGE - 100) + b"k" * PAGE)] * 1]
        found = explain(pagedup.find_duplicates(memory), memory, files)
    assert found.unreadable == 2  # the one that is gone, and the link
    assert found.bytes == PAGE


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
def test_what_may_not_be_read_is_counted() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        check_unreadable(root)


def check_unreadable(root: Path) -> None:
    root.chmod(0o755)
    (root / "closed").mkdir()
    for name in ("open", "secret", "closed/file"):
        (root / name).write_bytes(b"a" * PAGE)
    (root / "secret").chmod(0)
    (root / "closed").chmod(0)
    done = run_python(
        """
        import os, sys
        import pagedup.memory.files.ext_image
        from pagedup.memory.files.filetree import open_tree
        os.setgid(65534); os.setuid(65534)
        with open_tree(sys.argv[1]) as tree:
            for pieces in tree.batches(memoryview(bytearray(4096 * 4))):
                print([tree.paths[piece.file] for piece in pieces])
            print(tree.unreadable)
        """,
        root,
    )
    assert (done.stdout, done.stderr) == ("['open']\n2\n", "")


class Broken(FileTree):
    """A tree whose second file cannot be read on."""

    def _stretches(self) -> Any:
        yield 0, 3 * PAGE
        yield 1, 2 * PAGE
        yield 2, 10

    def _read(self, room: memoryview) -> int:
        room[:] = b"x" * len(room)
        return len(room) // 2

    def close(self) -> None:
        pass


def test_what_is_cut_short_leaves_whole_pages() -> None:
    batches = list(
        Broken("", [("a", 3 * PAGE), ("b", 2 * PAGE), ("c", 10)], 0).batches(memoryview(bytearray(8 * PAGE)))
    )
    assert batches == [[Piece(0, 0, 2), Piece(1, 2, 1), Piece(2, 3, 1)]]


@pytest.fixture(autouse=True)
def _nothing_is_left_open() -> Iterator[None]:
    before = sorted(os.listdir("/proc/self/fd"))
    yield
    assert sorted(os.listdir("/proc/self/fd")) == before
