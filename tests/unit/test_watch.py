"""Looking again at matched pages of a live process: a child that writes where and when it is told."""

import math
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np
import pytest

import pagedup
from pagedup.memory import LiveOptions, LiveSource, Source
from pagedup.memory.live.live_source import Place
from pagedup.memory.live.smaps import Mapping
from pagedup.memory.live.take import take
from pagedup.sharing import watch as watch_module
from pagedup.sharing.watch import Watch

SOON = 1e-6  # seconds; without any, what was looked at by comparing it is not looked at again

CHILD = """
import ctypes, mmap, sys
page, n = mmap.PAGESIZE, 40
memory = mmap.mmap(-1, n * page, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for i in range(n):  # ten zero pages, twenty of ten contents, and ten that stand alone
    text = b"" if i < 10 else b"%d" % (i % 10) if i < 30 else b"alone %d" % i
    memory[i * page:(i + 1) * page] = text.ljust(page, b"\\0")
print(ctypes.addressof(ctypes.c_char.from_buffer(memory)), flush=True)
for line in sys.stdin:
    for i in map(int, line.split()):
        memory[i * page + 9] = (memory[i * page + 9] + 1) % 256
    print("done", flush=True)
"""


class Writer:
    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.begin = int(self.process.stdout.readline())

    def write(self, *pages: int) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(" ".join(map(str, pages)) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"


@pytest.fixture
def writer() -> Iterator[Writer]:
    writer = Writer()
    yield writer
    writer.process.kill()
    writer.process.communicate()


class OneMapping(LiveSource):
    """The memory that the child writes to, and nothing else of it: an interpreter's own pages change as they like."""

    kind = "test"

    def __init__(self, writer: Writer) -> None:
        super().__init__("child", f"pid:{writer.process.pid}", writer.process.pid)
        self.begin, self.end = writer.begin, writer.begin + 40 * 4096

    def places(self, mappings: list[Mapping]) -> list[Place]:
        return [
            Place(mapping, self.begin, self.end, -self.begin, "memory")
            for mapping in mappings
            if mapping.start <= self.begin < mapping.end
        ]


def watched(writer: Writer, frame_size: int = 4096) -> tuple[list[Source], pagedup.Duplicates, Watch]:
    source = OneMapping(writer)
    take([source], LiveOptions(), frame_size=frame_size, alone=True)
    assert source.size == 40 * 4096
    sources: list[Source] = [source]
    found = pagedup.find_duplicates([source.extents for source in sources], frame_size=frame_size)
    return sources, found, Watch(sources, found)


@pytest.mark.parametrize("frame_size", [4096, 512])
def test_changes_are_seen_where_they_are(writer: Writer, frame_size: int) -> None:
    sources, found, watch = watched(writer, frame_size)
    with sources[0]:
        writer.write(2, 11, 35)  # a zero page, one of two copies, and one that stands alone
        watch.look(1, SOON)
        volatile = found.addresses[watch.volatile(found)]
    # Of a page that stands alone some small frames are zero.
    expected, n_pages = ({2, 11}, 30) if frame_size == 4096 else ({2, 11, 35}, 40)
    assert {int(address) // 4096 for address in volatile} == expected
    assert len(volatile) == len(expected) * 4096 // frame_size
    (look,) = watch.looks
    assert (watch.n_pages, look.changed, look.unchanged) == (n_pages, len(expected), n_pages - len(expected))


def test_each_look_tells_what_changed_since_the_last(writer: Writer) -> None:
    sources, _, watch = watched(writer)
    with sources[0]:
        n = watch.n_pages
        for pages in ((11, 12), (12, 13), ()):
            writer.write(*pages)
            watch.look(1, SOON)
    assert [look.changed for look in watch.looks] == [2, 2, 0]
    assert [look.unchanged for look in watch.looks] == [n - 2, n - 3, n - 3]


def test_looks_are_an_interval_apart(writer: Writer) -> None:
    sources, _, watch = watched(writer)
    seen: list[tuple[str, int, int]] = []
    with sources[0]:
        begin = time.monotonic()
        watch.look(3, 0.3, lambda phase, done, total: seen.append((phase, done, total)))
        assert time.monotonic() - begin > 0.6
    assert np.diff([look.seconds for look in watch.looks], prepend=0).min() >= 0.3
    assert ("looking again", 1, 1) in seen and any(phase == "waiting for look 3 of 3" for phase, _, _ in seen)


def test_looks_are_an_interval_apart_even_if_the_first_one_is_late(writer: Writer) -> None:
    sources, _, watch = watched(writer)
    with sources[0]:
        time.sleep(0.9)  # as grouping may take
        watch.look(3, 0.3)
    assert np.diff([look.seconds for look in watch.looks]).min() >= 0.3


def test_nothing_to_watch() -> None:
    found = pagedup.find_duplicates(np.arange(4096, dtype=np.uint32).view(np.uint8))
    watch = Watch([], pagedup.find_duplicates([]))
    watch.look(2, 5)  # does not wait
    assert watch.n_pages == 0 and watch.looks == [] and found.n_frames == 4


def test_a_process_that_ends_between_looks(writer: Writer) -> None:
    sources, _, watch = watched(writer)
    with sources[0]:
        writer.process.kill()
        writer.process.wait()
        with pytest.raises(ProcessLookupError, match="the process ended"):
            watch.look(1, 0)


def test_half_life_of_a_constant_rate() -> None:
    """Pages that change at a constant rate: half of them are left after ln 2 / rate, whatever was seen of it."""
    for rate in (0.001, 0.1, 2.0):
        looks = [(t, round(1e9 * math.exp(-rate * t))) for t in (0.0, 0.5, 1.0, 1.5, 2.0)]
        seconds, how = watch_module._half_life(looks)
        # Between two looks a straight line is drawn, which lies above the curve.
        assert seconds == pytest.approx(math.log(2) / rate, rel=0.15 if rate == 2.0 else 0.01)
        assert how.startswith("interpolated" if rate == 2.0 else "extrapolated from 0.5 to 2 s")


@pytest.mark.parametrize(
    ("looks", "seconds", "how"),
    [
        ([(0.0, 100), (1.0, 100), (2.0, 100)], None, "no page changed in 2 s"),
        ([(0.0, 9), (1.0, 7), (2.0, 7)], None, "no page changed from the first look after 1 s to the last after 2 s"),
        ([(0.0, 100), (1.0, 60), (2.0, 40)], 1.5, "interpolated between two looks"),
        ([(0.0, 100), (1.0, 0)], 0.5, "interpolated between two looks"),
    ],
)
def test_half_life(looks: list[tuple[float, int]], seconds: float | None, how: str) -> None:
    assert watch_module._half_life(looks) == (seconds, how)


def test_a_hot_part_does_not_make_the_rest_short_lived() -> None:
    """A third is written all the time; the rest hardly ever."""
    seconds, _ = watch_module._half_life([(0.0, 48188), (1.0, 32392), (2.0, 31654), (3.0, 31302)])
    assert seconds is not None and 10 < seconds < 30
