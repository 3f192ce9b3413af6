"""The memory that a call takes beyond the buffers, at its peak, result included."""

import pytest

from tests.processes import run_python, under_sanitizer

MIB = 1 << 20

# argv: kind of data, frames, frame size. Prints the bytes that the call took at its peak beyond what was there before.
MEASURE = """
import gc, re, sys
from pathlib import Path
import numpy as np
from pagedup import find_duplicates

kind, n, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
memory = np.full((n, size // 8), 3, np.uint64)
column = {"alike": size // 16, "deep": size // 16 + 32}.get(kind, 0)
memory[:, column] = np.arange(1, n + 1, dtype=np.uint64)
if kind == "deep":
    memory[1:, size // 16] = 4
if kind == "pairs":
    memory[n // 2 :] = memory[: n // 2]
if kind == "equal":
    memory[:] = 7
guests, domains = [memory.reshape(-1)], None
if kind == "domains":
    guests, domains = [memory[: n // 2], memory[:1], memory[n // 2 :]], [1, 2, 1]
find_duplicates(memory[:1], frame_size=size)  # what is imported and allocated once

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

gc.collect()
Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
before = status("VmRSS")
found = find_duplicates(guests, domains=domains, frame_size=size, threads=2)
peak = status("VmHWM")
assert found.n_frames in (n, n + 1)
print(peak - before)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
@pytest.mark.parametrize(
    ("kind", "n", "size", "per_frame"),
    [
        ("unique", 1 << 20, 512, 24),
        ("unique", 1 << 20, 64, 24),
        ("unique", 4 << 20, 8, 24),
        ("pairs", 1 << 20, 512, 24),
        ("equal", 1 << 20, 512, 24),
        ("domains", 16 << 20, 16, 24),
        ("alike", 1 << 20, 512, 36),
        ("deep", 1 << 20, 1024, 36),
    ],
)
def test_peak(kind: str, n: int, size: int, per_frame: int) -> None:
    done = run_python(MEASURE, kind, n, size)
    assert done.returncode == 0, done.stderr
    taken = int(done.stdout)
    print(f"{kind}: {taken / n:.1f} bytes a frame")
    assert taken <= per_frame * n + 16 * MIB
    assert taken >= 20 * n, "what is measured is not the peak"


# argv: fragmentation, pages. Prints the bytes that placing all pages took at its peak beyond the places themselves.
PLACE = """
import re, sys
from pathlib import Path
import numpy as np
import dedupcore

fragmentation, n = float(sys.argv[1]), int(sys.argv[2])
places = np.full(n, 1, np.uint32)
counts, fixed = np.array([n]), np.array([-1])
dedupcore.place(1, 1, fragmentation, np.array([1]), b"\\0", fixed, places[:1])

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
dedupcore.place(1, n, fragmentation, counts, b"\\0", fixed, places)
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
@pytest.mark.parametrize(("fragmentation", "per_page"), [(0.0, 0.1), (0.93, 2.5), (1.0, 4.0)])
def test_peak_of_placement(fragmentation: float, per_page: float) -> None:
    n = 1 << 22
    done = run_python(PLACE, fragmentation, n)
    assert done.returncode == 0, done.stderr
    taken = int(done.stdout)
    print(f"{taken / n:.2f} bytes a page")
    assert taken <= per_page * n + MIB


# argv: kind of pool, pages. Prints the bytes that sharing took at its peak beyond what was there before.
SHARE = """
import re, sys
from pathlib import Path
import numpy as np
from pagedup.sharing import FramePool

kind, n = sys.argv[1], int(sys.argv[2])
pool = FramePool(n, 8)
run = 1 << 12
guests = [pool.add_guest(n, domain=domain) for domain in range(2 if kind == "domains" else 1)]
for first in range(0, n, run):
    at = np.arange(first, first + run, dtype=np.uint32)
    guests[first // run % len(guests)].write(at, at.astype(np.uint64) + np.uint64(1))
FramePool(1, 8).share()  # what is imported and allocated once

def status(name):
    return int(re.search(name + r":\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

Path("/proc/self/clear_refs").write_text("5")
before = status("VmRSS")
pool.share()
assert pool.counts().in_use == n
print(status("VmHWM") - before)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
@pytest.mark.parametrize(("kind", "per_frame"), [("one", 24), ("domains", 32)])
def test_peak_of_sharing(kind: str, per_frame: int) -> None:
    n = 4 << 20
    done = run_python(SHARE, kind, n)
    assert done.returncode == 0, done.stderr
    taken = int(done.stdout)
    print(f"{kind}: {taken / n:.1f} bytes a frame")
    assert taken <= per_frame * n + 16 * MIB
    assert taken >= 20 * n if kind == "one" else 16 * n, "what is measured is not the peak"


# argv: policy, pages. Prints the bytes a page that a pool of names takes beside the names themselves, all of them
# different; and those of a guest that was never touched.
BOOKKEEPING = """
import math, re, sys
from pathlib import Path
import numpy as np
from pagedup.sharing import Dirty, Esx, FramePool, Ksm

kind, n = sys.argv[1], int(sys.argv[2])
policy = {"none": None, "dirty": Dirty(), "ksm": Ksm(), "esx": Esx(cpu_ghz=1)}[kind]

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

def filled(n):
    pool = FramePool(2 * n, 8, policy=policy)
    guest = pool.add_guest(n)
    at = np.arange(min(n, 1 << 16), dtype=np.uint32)
    data = at.astype(np.uint64)
    for first in range(0, n, len(at)):
        guest.write(at + np.uint32(first), data + np.uint64(first + 1))
    for _ in range(3 if policy else 0):
        pool.scan(math.inf)
    assert pool.counts().in_use == n
    return pool

filled(1 << 16)  # what is imported and allocated once
before = resident()
pool = filled(n)
present = resident() - before - 8 * n
before = resident()
pool.add_guest(n)
for _ in range(3 if policy else 0):
    pool.scan(math.inf)
print(present / n, (resident() - before) / n)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
@pytest.mark.parametrize(("kind", "most"), [("none", 11), ("dirty", 28), ("ksm", 28), ("esx", 28)])
def test_bookkeeping(kind: str, most: int) -> None:
    """KSM takes 64 bytes for a page that it scans."""
    n = 4 << 20  # the index has just grown
    done = run_python(BOOKKEEPING, kind, n)
    assert done.returncode == 0, done.stderr
    present, untouched = map(float, done.stdout.split())
    print(f"{kind}: {present:.1f} bytes a present page, {untouched:.1f} an untouched one")
    assert present <= most
    assert untouched <= 8
    assert present >= 10, "what is measured is not the bookkeeping"


# argv: pages. Prints the bytes a page that touching pages takes beyond what it took to make a guest of them.
TOUCHED = """
import re, sys
from pathlib import Path
import numpy as np
from pagedup.sharing import FramePool

n = int(sys.argv[1])
pool = FramePool(n, 8)
guest = pool.add_guest(n)
at = np.arange(1 << 16, dtype=np.uint32)
guest.touch(at)

def resident():
    return int(re.search(r"VmRSS:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) << 10

before = resident()
for first in range(0, n, len(at)):
    guest.touch(at + np.uint32(first))
assert pool.counts().in_use == 0
print((resident() - before) / n)
"""


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers take memory of their own")
def test_marks_of_accesses() -> None:
    done = run_python(TOUCHED, 32 << 20)
    assert done.returncode == 0, done.stderr
    print(f"{float(done.stdout):.2f} bytes a touched page")
    assert 0.8 <= float(done.stdout) <= 1.1
