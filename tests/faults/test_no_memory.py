"""When memory runs out: MemoryError, nothing lost, and the process goes on."""

import pytest

from tests.processes import run_python, under_sanitizer

pytestmark = pytest.mark.skipif(under_sanitizer(), reason="the sanitizers reserve terabytes of addresses")

# On one thread: CPython waits for ever for a new thread that had no memory to begin with (Thread.start).
# Allows more and more memory beyond what is in use until the call succeeds; prints how often it failed.
STARVE = """
import resource, sys
from pathlib import Path
import numpy as np
from pagedup import find_duplicates

kind, n = sys.argv[1], int(sys.argv[2])
memory = np.full((n, 64), 3, np.uint64)
memory[:, 0 if kind == "unique" else 40] = np.arange(1, n + 1, dtype=np.uint64)
if kind == "deep":
    memory[1:, 20] = 4
whole = memory.reshape(-1)

def call():
    return find_duplicates(whole, frame_size=512, threads=1)

def used():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

expected = call().canonical.tolist()
before = used()
failures = 0
for extra in range(0, 64 << 20, 256 << 10):
    resource.setrlimit(resource.RLIMIT_AS, (before + extra, resource.RLIM_INFINITY))
    try:
        found = call()
    except MemoryError:
        failures += 1
        found = None
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if found is not None:
        break
assert found.canonical.tolist() == expected
assert used() - before < 16 << 20, "the calls that failed kept their memory"
assert call().canonical.tolist() == expected
print(failures)
"""


@pytest.mark.parametrize("kind", ["unique", "alike", "deep"])
def test_no_scratch_memory(kind: str) -> None:
    done = run_python(STARVE, kind, 1 << 17)
    assert done.returncode == 0, done.stderr
    # 20 bytes of scratch a frame, in steps of 256 KiB: it failed in each of its allocations.
    assert int(done.stdout) >= 8


def test_no_memory_for_the_result() -> None:
    done = run_python(
        """
        import resource
        from pagedup import ZeroExtent, find_duplicates
        resource.setrlimit(resource.RLIMIT_AS, (1 << 32, resource.RLIM_INFINITY))
        try:
            find_duplicates([ZeroExtent(0, 8 * (2**32 - 1))], frame_size=8)
        except MemoryError as error:
            print("refused")
        print(find_duplicates(bytes(4096)).n_zero)
        """
    )
    assert (done.stdout.split(), done.returncode) == (["refused", "1"], 0), done.stderr


def test_no_memory_to_map_a_file(tmp_path) -> None:
    image = tmp_path / "image"
    with image.open("wb") as file:
        file.truncate(8 << 30)
    done = run_python(
        """
        import errno, resource, sys
        from dedupcore import MappedFile
        resource.setrlimit(resource.RLIMIT_AS, (1 << 32, resource.RLIM_INFINITY))
        file = open(sys.argv[1], "rb")
        try:
            MappedFile(file.fileno(), 8 << 30)
        except OSError as error:
            print(errno.errorcode[error.errno])
        print(len(memoryview(MappedFile(file.fileno(), 4096))))
        """,
        image,
    )
    assert (done.stdout.split(), done.returncode) == (["ENOMEM", "4096"], 0), done.stderr


def test_no_memory_to_place_a_guest() -> None:
    """Its lists need up to 4 bytes a page, and with 20,000 regions 320 KiB before that."""
    done = run_python(
        """
        import resource
        import numpy as np
        import dedupcore
        n, regions = 1 << 28, 20_000
        orders, fixed, counts = bytes(regions), np.full(regions, -1), np.zeros(regions, np.int64)
        counts[:3] = 1
        places = np.zeros(3, np.uint32)
        def place():
            dedupcore.place(1, n, 1.0, counts, orders, fixed, places)
        resource.setrlimit(resource.RLIMIT_AS, (1 << 30, resource.RLIM_INFINITY))
        try:
            place()
        except MemoryError:
            print("refused")
        n = 4096
        place()
        print(len(set(places.tolist())))
        """
    )
    assert (done.stdout.split(), done.returncode) == (["refused", "3"], 0), done.stderr


# Allows more and more memory until the call succeeds; each time that it does not, the pool must be as it was.
STARVED_POOL = """
import resource, sys
from pathlib import Path
import numpy as np
from pagedup.sharing import FramePool, Ksm

what, frame_size = sys.argv[1], 64
n = 1 << 18
pool = FramePool(2 * n, frame_size, policy=Ksm() if what == "policy" else None)
large = what.startswith("large")
domains = range(2) if what == "domains" else (0, 0)
guests = [pool.add_guest(n, domain=domain, large_pages=large) for domain in domains]
data = np.zeros((n, frame_size // 8), np.uint64)
data[:, 3] = np.arange(n) // 2
for guest in guests:
    guest.write(np.arange(n), data.view(np.uint8))

def call():
    if what in ("guest", "policy"):
        pool.add_guest(3 << 20)
    elif what == "pool":
        FramePool(1 << 16, 512, policy=Ksm()).close()
    elif what == "large hints":
        pool.large_hints()
    elif what == "large pages":
        pool.share_large()
    else:
        pool.share()

def state():
    return pool.counts(), len(pool.guests), [guest.page_table.tobytes() for guest in guests]

def used():
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()

before, failures, used_before = state(), 0, used()
for extra in range(0, 128 << 20, 4 << 10 if what == "large pages" else 256 << 10):  # of blocks there are few
    resource.setrlimit(resource.RLIMIT_AS, (used() + extra, resource.RLIM_INFINITY))
    try:
        call()
        break
    except MemoryError as error:
        assert str(error) == "dedupcore: out of memory", error
        failures += 1
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    if failures % 8 == 1:
        assert state() == before
        pool.check()
else:
    raise SystemExit("it never succeeded")
pool.check()
assert used() - used_before < 32 << 20, "the calls that failed kept their memory"
if what in ("domains", "share"):
    assert pool.counts().in_use == n // 2 * len(set(guest.domain for guest in guests))
assert pool.counts().in_use == n or what != "large pages"
print(failures)
"""


@pytest.mark.parametrize("what", ["share", "domains", "guest", "policy", "pool", "large hints", "large pages"])
def test_no_memory_for_a_pool(what: str) -> None:
    done = run_python(STARVED_POOL, what)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= (3 if what == "large pages" else 8)


def test_no_memory_for_the_index_of_a_policy() -> None:
    """Its chains get longer, and it shares what it shares."""
    done = run_python(
        """
        import math, resource
        from pathlib import Path
        import numpy as np
        from pagedup.sharing import Dirty, FramePool
        n = 1 << 22
        pool = FramePool(n, 8, policy=Dirty())
        guest = pool.add_guest(n)
        for first in range(0, n, 1 << 16):
            gpns = np.arange(first, first + (1 << 16), dtype=np.uint32)
            guest.write(gpns, gpns // np.uint32(2) + np.uint64(1))
        most = np.arange(20000, n, dtype=np.uint32)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used, resource.RLIM_INFINITY))
        guest.release(most)
        pool.scan(math.inf)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        pool.check()
        print(pool.counts().in_use)
        """
    )
    assert (done.stdout.split(), done.returncode) == (["10000"], 0), done.stderr
