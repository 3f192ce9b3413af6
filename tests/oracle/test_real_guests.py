"""Memory of real guests: the engine against a dictionary of the pages' bytes, and the command against the engine."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pagedup
from tests.oracle.conftest import RealGuest
from tests.processes import run_python

pytestmark = pytest.mark.qemu
PAGE = 4096


@pytest.fixture
def dumps(real_guests: list[RealGuest]) -> list[Path]:
    return [guest.dump for guest in real_guests]


def by_dictionary(memories: list[bytes], domains: list[int]) -> list[int]:
    """The lowest frame of equal content, by the bytes themselves."""
    lowest: dict[tuple[int, bytes], int] = {}
    canonical: list[int] = []
    for memory, domain in zip(memories, domains, strict=True):
        for at in range(0, len(memory), PAGE):
            canonical.append(lowest.setdefault((domain, memory[at : at + PAGE]), len(canonical)))
    return canonical


@pytest.mark.parametrize("domains", [[0, 0, 0], [0, 1, 0], [0, 1, 2]])
def test_engine_agrees_with_a_dictionary(dumps: list[Path], domains: list[int]) -> None:
    memories = [dump.read_bytes() for dump in dumps]
    found = pagedup.find_duplicates(memories, domains=domains, threads=2)
    assert np.array_equal(found.canonical, by_dictionary(memories, domains))
    assert found.n_zero == sum(
        not any(memory[at : at + PAGE]) for memory in memories for at in range(0, len(memory), PAGE)
    )


def test_large_frames_follow_from_small_ones(dumps: list[Path]) -> None:
    memories = [dump.read_bytes() for dump in dumps]
    small = pagedup.find_duplicates(memories)
    for size in (16 << 10, 64 << 10, 2 << 20):
        direct = pagedup.find_duplicates(memories, frame_size=size)
        coarse = small.coarsen(size // PAGE)
        assert np.array_equal(coarse.canonical, direct.canonical)
        assert pagedup.summarize(coarse) == pagedup.summarize(direct)


def test_command_agrees_with_the_engine(dumps: list[Path]) -> None:
    command = [sys.executable, "-m", "pagedup", "scan", "--json", *map(str, dumps)]
    report = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    found = pagedup.find_duplicates([dump.read_bytes() for dump in dumps])
    row = report["page_sizes"][0]
    assert {key: row[key] for key in ("page_size", "frames", "zero", "distinct")} == {
        "page_size": PAGE,
        "frames": found.n_frames,
        "zero": found.n_zero,
        "distinct": found.n_distinct,
    }
    # What any such guests share: kernel and libraries across, zero pages in each.
    assert row["saved_across_guests"] > 1000
    assert all(guest["zero"] > 1000 for guest in report["per_guest"])


# argv: dumps. Their RAM is shared in place; then it is written to, and a child writes to it, each for itself.
IN_PLACE = """
import os, sys
import numpy as np
import pagedup

whole = [np.fromfile(path, np.uint8) for path in sys.argv[1:]]
arrays = [pagedup.allocate(dump.nbytes) for dump in whole]
for array, dump in zip(arrays, whole):
    array[:] = dump

def equal():
    return all(np.array_equal(array, dump) for array, dump in zip(arrays, whole))

found = pagedup.find_duplicates(arrays)
result = pagedup.share_in_place(arrays)
assert equal(), "sharing changed a byte"
saved = (found.n_frames - found.n_distinct) * 4096
assert result.saved_bytes >= 0.97 * saved, (result, saved)

dice = np.random.default_rng(1)
for array, dump in zip(arrays, whole):
    for page in dice.choice(len(dump) // 4096, 3000, replace=False).tolist():
        at = page * 4096 + int(dice.integers(4096))
        array[at] ^= 1
        dump[at] ^= 1
assert equal(), "a write reached another page, or none"

reading, writing = os.pipe()
child = os.fork()
if child == 0:
    status = 1
    try:
        arrays[0][::4096] += 1
        os.write(writing, b"written")
        whole[0][::4096] += 1
        status = 0 if equal() else 2
    finally:
        os._exit(status)
os.read(reading, 7)
arrays[1][100::4096] += 1
whole[1][100::4096] += 1
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child does not read what it wrote"
assert equal(), "what the child wrote is seen here"
result.reclaim()
assert equal(), "reclaiming changed a byte"
again = pagedup.share_in_place(arrays)
assert equal(), "sharing again changed a byte"
print(sum(dump.nbytes for dump in whole), result.saved_bytes, again.saved_bytes)
"""


def test_ram_of_guests_shared_in_place(dumps: list[Path]) -> None:
    done = run_python(IN_PLACE, *dumps)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
