"""When the disk fails: no page is lost silently, and what is kept is said."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import run, run_python, succeed, under_sanitizer

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(under_sanitizer(), reason="the sanitizer must be preloaded first")


@pytest.fixture(scope="module")
def failing_io(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The library that makes calls to the system fail."""
    library = tmp_path_factory.mktemp("shim") / "failing_io.so"
    succeed(["cc", "-std=c11", "-Wall", "-Werror", "-O1", "-shared", "-fPIC", "-o", str(library),
             str(HERE / "failing_io.c"), "-ldl"])  # fmt: skip
    return str(library)


# argv: whether a call fails for ever, frame size, and faults: kind of call, how it fails, bytes. A guest's pages go out
# and come back in batches, with the k-th call failing, for each k that there is; prints for each fault how many calls
# there were, how often one failed, and pages lost. Nothing may be lost but what the disk altered, and that is named.
WORK = """
import ctypes, errno, os, sys
import numpy as np
from pagedup.host import Pager, PageLost
from pagedup.sharing import FramePool
from pagedup.sharing.frame_pool import OUT
from pagedup.swap import CompressedCache, SwapFile

for_ever, size = map(int, sys.argv[1:3])
SPECIAL = {"SHORT": -1, "TORN": -2, "LIE": -3, "NOTHING": -4}
fail_io = ctypes.CDLL(None).fail_io
io_failed = ctypes.CDLL(None).io_failed
fail_io.argtypes = [ctypes.c_int, ctypes.c_long, ctypes.c_int, ctypes.c_long, ctypes.c_int]
io_failed.restype = ctypes.c_long
PAGES = 16

def content(version):
    dice = np.random.default_rng(version)
    pages = dice.integers(0, 256, (PAGES, size), np.uint8)
    pages[::3] = version + 1
    return pages

def tried(call, *arguments):
    try:
        call(*arguments)
    except PageLost as error:
        assert name == "LIE" and kind == "write", error
    except OSError as error:
        assert error.errno == how and kind == "read", error
        assert "guest 0" in str(error)

def run(k):
    with FramePool(PAGES, size) as pool, SwapFile(40, size) as swap, CompressedCache(2, size) as cache:
        pager, guest, model = Pager(pool, swap, cache), pool.add_guest(PAGES), np.zeros((PAGES, size), np.uint8)
        pager._step = 7
        fail_io(("write", "read", "sync").index(kind), k, how, nbytes, for_ever)
        dice = np.random.default_rng(5)
        for version in range(3):
            gpns = dice.permutation(PAGES)[:11]
            data = content(version)[gpns]
            pager.write(guest, gpns, data)
            model[gpns] = data
            present = np.flatnonzero(guest.marks & OUT == 0)
            there = present[guest.page_table[present] != 2**32 - 1]
            done = pager.page_out(guest, dice.permutation(there)[:10])
            if done.error is not None:
                assert done.error.errno == (errno.EIO if name in ("TORN", "NOTHING") else how) and done.kept
            else:
                assert done.kept == 0
            away = np.flatnonzero(guest.marks & OUT)
            away = away[pager._pages_of(guest).places[away] != 2**32 - 1]
            tried(pager.page_in, guest, dice.permutation(away)[:4])
            tried(pager.read, guest, np.arange(PAGES), np.empty((PAGES, size), np.uint8))
            pool.check()
            assert pool.counts().in_use + pager.frames <= pool.capacity
        failed = io_failed()
        fail_io(0, 0, 0, 0, 0)
        out = np.empty((1, size), np.uint8)
        lost = set()
        for gpn in range(PAGES):
            try:
                pager.read(guest, [gpn], out)
                assert (out[0] == model[gpn]).all(), (k, gpn)
            except PageLost as error:
                assert error.gpns == (gpn,)
                lost.add(gpn)
        assert lost <= {each.gpn for each in pager.lost}
        assert not lost or (name == "LIE" and kind == "write"), (k, lost)
        assert bool(pager.counts().lost) >= bool(lost) and swap.used == pager.counts().pages_swapped + len(pager.lost)
        return failed, len(pager.lost)

for fault in sys.argv[3:]:
    kind, name, nbytes = fault.split("-")[0], fault.split("-")[1], int(fault.split("-")[2])
    how = SPECIAL[name] if name in SPECIAL else getattr(errno, name)
    k = total = lost = 0
    while k == 0 or failed:
        k += 1
        failed, gone = run(k)
        total += failed
        lost += gone
    print(fault, k - 1, total, lost)
"""

WRITES = [f"write-{how}-0" for how in ("EIO", "ENOSPC", "EDQUOT", "EFBIG", "EINTR", "EINVAL", "NOTHING")]
PARTS = [*(f"write-SHORT-{n}" for n in (1, 512, 4096, 5000)), *(f"write-TORN-{n}" for n in (512, 4096, 9000))]
READS = [
    *(f"read-{how}-0" for how in ("EIO", "EINTR", "EINVAL", "NOTHING", "LIE")),
    *(f"read-SHORT-{n}" for n in (1, 512, 4096, 5000)),
]
SYNCS = ["sync-EIO-0", "sync-ENOSPC-0"]  # of smaller pages, which go through the page cache
LIE = "write-LIE-5000"


@pytest.mark.parametrize(
    ("size", "faults"),
    [(4096, WRITES), (4096, [*PARTS, LIE]), (4096, READS), (2048, SYNCS)],
    ids=["writes", "parts", "reads", "syncs"],
)
def test_each_call_fails_once(failing_io: str, size: int, faults: list[str]) -> None:
    for fault, calls, failed, lost in work(failing_io, 0, size, faults):
        assert int(calls) == int(failed) >= 4, fault
        assert (int(lost) > 0) == (fault == LIE)


@pytest.mark.parametrize("size", [2048, 4096])
def test_a_disk_that_fails_and_stays_so(failing_io: str, size: int) -> None:
    faults = ["write-EIO-0", "write-ENOSPC-0", "read-EIO-0", *(["sync-EIO-0"] if size == 2048 else [])]
    for fault, calls, failed, lost in work(failing_io, 1, size, faults):
        assert int(failed) > int(calls) >= 4 and lost == "0", fault


def work(failing_io: str, for_ever: int, size: int, faults: list[str]) -> list[list[str]]:
    done = run_python(WORK, for_ever, size, *faults, environment={"LD_PRELOAD": failing_io})
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line[0] for line in lines] == faults
    return lines


# argv: folder, slots, or a limit of the file's size in bytes. Prints the error, pages stored, and whether the rest of
# the disk is told each time.
FULL = """
import errno, resource, sys
import numpy as np
from pagedup.swap import SwapFile
folder, slots, limit = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
data = np.random.default_rng(1).integers(0, 256, (slots, 4096), np.uint8)
for plain in (False, True):
    with SwapFile(slots, directory=folder) as swap:
        if plain:
            swap._file.direct = swap._file._set_direct(False)
        put = swap.put(data)
        assert put.error is not None and 0 < len(put.slots) < slots, put
        print(errno.errorcode[put.error.errno], len(put.slots))
        out = np.empty((len(put.slots), 4096), np.uint8)
        swap.get(put.slots, out)
        assert (out == data[: len(out)]).all()
        again = swap.put(data[:1])
        assert again.error is not None and not len(again.slots)
        swap.free(put.slots[3:7])
        more = swap.put(data[-4:])  # room that it has already
        assert more.error is None and more.slots.tolist() == [3, 4, 5, 6]
        swap.get(more.slots, out[:4])
        assert (out[:4] == data[-4:]).all()
"""


def test_the_limit_of_a_file(tmp_path: Path) -> None:
    done = run_python(FULL, tmp_path, 100, 40 * 4096)
    assert (done.stdout.split(), done.returncode) == (["EFBIG", "40"] * 2, 0), done.stderr


def test_a_limit_in_the_middle_of_a_page(tmp_path: Path) -> None:
    done = run_python(FULL, tmp_path, 100, 40 * 4096 + 512)
    assert (done.stdout.split(), done.returncode) == (["EFBIG", "40"] * 2, 0), done.stderr


def test_a_full_disk(tmp_path: Path) -> None:
    """A small file system of its own, in a namespace of mounts."""
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec"]
    if not shutil.which("unshare") or run([*inside, f"mount -t tmpfs tmpfs '{tmp_path}'"]).returncode:
        pytest.skip("no file system can be mounted here")
    script = f"mount -t tmpfs -o size=160k tmpfs '{tmp_path}'; exec \"$0\" -P -c \"$1\" '{tmp_path}' 100 0"
    done = subprocess.run([*inside, script, sys.executable, FULL], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["ENOSPC", "40"] * 2


# Guests of 48 MiB in a pool of 8, and less memory than 48 in all (RLIMIT_DATA), of which the stack of a thread takes 8;
# pages are written several times, anywhere, and read back.
UNDER_A_LIMIT = """
import resource
from pathlib import Path
import numpy as np
import dedupcore
from pagedup.host import Pager
from pagedup.sharing import FramePool
from pagedup.swap import CompressedCache, SwapFile, random_victims

MIB, PAGES, GUESTS = 1 << 20, 4096, 3

def content(guest, gpns, versions):
    out = np.empty((len(gpns), 512), np.uint64)
    keys = (gpns.astype(np.uint64) << np.uint64(20)) + versions.astype(np.uint64) + np.uint64(guest << 50)
    dedupcore.materialize(keys + np.uint64(1), out.view(np.uint8).reshape(-1), 4096, dedupcore.NOISE)
    out[gpns % 3 == 0, 200:] = 5  # compresses
    return out.view(np.uint8)

used = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()  # data and stack
resource.setrlimit(resource.RLIMIT_DATA, (used + 40 * MIB, resource.RLIM_INFINITY))
try:
    np.ones(GUESTS * PAGES * 4096, np.uint8)
    raise SystemExit("there is no limit")
except MemoryError:
    pass

with FramePool(8 * MIB // 4096) as pool, SwapFile(GUESTS * PAGES) as swap, CompressedCache(256) as cache:
    pager = Pager(pool, swap, cache)
    guests = [pool.add_guest(PAGES) for _ in range(GUESTS)]
    versions = np.zeros((GUESTS, PAGES), np.int64)
    dice = np.random.default_rng(1)

    def make_room(n):
        while pool.limit - pool.counts().in_use < n:
            fullest = max(guests, key=lambda guest: int((guest.page_table != 2**32 - 1).sum()))
            done = pager.page_out(fullest, random_victims(fullest, 256))
            assert not done.kept, done

    for step in range(75):
        g = int(dice.integers(GUESTS))
        gpns = dice.permutation(PAGES)[:400]
        versions[g, gpns] += 1
        make_room(len(gpns))
        pager.write(guests[g], gpns, content(g, gpns, versions[g, gpns]))
        if step % 3 == 0:
            out = np.flatnonzero(guests[g].marks & 1)
            out = dice.permutation(out)[:200]
            make_room(len(out))
            pager.page_in(guests[g], out)
    checked = 0
    buffer = np.empty((256, 4096), np.uint8)
    for g, guest in enumerate(guests):
        for first in range(0, PAGES, 256):
            gpns = np.arange(first, first + 256)
            pager.read(guest, gpns, buffer)
            written = versions[g, gpns] > 0
            assert (buffer[written] == content(g, gpns, versions[g, gpns])[written]).all(), (g, first)
            assert not buffer[~written].any()
            checked += int(written.sum())
    pool.check()
    counts = pager.counts()
    assert pool.counts().in_use + pager.frames <= pool.capacity
    assert counts.evicted and counts.compressed and counts.swapped_out and counts.swapped_in and not pager.lost
    print(checked, counts.pages_compressed + counts.pages_swapped)
"""


def test_more_pages_than_memory() -> None:
    done = run_python(UNDER_A_LIMIT)
    assert done.returncode == 0, done.stderr
    checked, out = map(int, done.stdout.split())
    assert checked > 10_000 and out > 8_000  # of 12,288 pages, of which 2,048 are in memory
