"""What is predicted of KSM under several settings, against the running kernel on the same bytes."""

import mmap
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

import pagedup
from benchmarks import ksm, scan_cost
from pagedup.sharing import KsmCounters, KsmPrediction, huge_page_cost, predict_ksm

pytestmark = pytest.mark.ksm
PAGE, LARGE = mmap.PAGESIZE, 2 << 20
SHIPPED = {"use_zero_pages": 0, "max_page_sharing": 256}
AT_DEFAULT_PACE = {**SHIPPED, "smart_scan": 1, "pages_to_scan": 100, "sleep_millisecs": 20}


@contextmanager
def mergeable(pages: np.ndarray) -> Iterator[mmap.mmap]:
    with mmap.mmap(-1, pages.nbytes, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        memory.madvise(mmap.MADV_MERGEABLE)
        memory[:] = pages.tobytes()
        yield memory


def content(seed: int = 1) -> np.ndarray:
    """Contents with copies on both sides of the limit of 256, and as many zero pages; mixed."""
    rng = np.random.default_rng(seed)
    copies = [1, 1, 1, 2, 3, 255, 256, 257, 258, 511, 512, 513, 514]
    names = rng.permutation(np.repeat(np.arange(len(copies) + 1), [770, *copies]))
    contents = rng.integers(0, 256, (len(copies) + 1, PAGE), np.uint8)
    contents[0] = 0
    mixed: np.ndarray = contents[names]
    return mixed


def predict(memory: mmap.mmap) -> KsmPrediction:
    return predict_ksm(pagedup.find_duplicates(memory, frame_size=PAGE))


def expected(counters: KsmCounters) -> dict[str, int]:
    return {name: count for name, count in asdict(counters).items() if name != "general_profit"}


@pytest.mark.parametrize("shipped", [True, False])
def test_counters_and_profit(shipped: bool) -> None:
    with ksm.stepped(SHIPPED if shipped else {}) as kernel, mergeable(content()) as memory:
        found = predict(memory)
        wanted = found.as_shipped if shipped else found.zero_pages
        kernel.scan()
        assert ksm.read("pages_sharing") == "0"
        second = kernel.scan()
        for name in ("pages_shared", "pages_sharing", "ksm_zero_pages"):
            assert second[name] == getattr(wanted, name), f"{name} after two scans"
        assert kernel.converge() == expected(wanted)
        assert kernel.general_profit() == wanted.general_profit


def test_smart_scan_merges_the_same() -> None:
    """As it ships: only the count of unshared pages is another, since it skips some of them."""
    with ksm.stepped({**SHIPPED, "smart_scan": 1}) as kernel, mergeable(content(2)) as memory:
        wanted = predict(memory).as_shipped
        for _ in range(8):
            last = kernel.scan()
        assert (last["pages_shared"], last["pages_sharing"]) == (wanted.pages_shared, wanted.pages_sharing)
        assert last["pages_unshared"] + last["pages_volatile"] == wanted.pages_unshared
        assert kernel.general_profit() == wanted.general_profit


def test_volatile_pages() -> None:
    """Pages that are written before each scan stay out, as those that predict_ksm is told of."""
    pages = content(3)
    rng = np.random.default_rng(4)
    volatile = rng.random(len(pages)) < 0.1
    with ksm.stepped(SHIPPED) as kernel, mergeable(pages) as memory:
        wanted = predict_ksm(pagedup.find_duplicates(memory, frame_size=PAGE), volatile=volatile).as_shipped
        for _ in range(4):
            for page in np.flatnonzero(volatile).tolist():
                memory[page * PAGE : page * PAGE + 64] = rng.bytes(64)
            last = kernel.scan()
        del last["full_scans"]
        assert last == expected(wanted)
        assert wanted.pages_volatile == np.count_nonzero(volatile) > 0
        assert kernel.general_profit() == wanted.general_profit


def huge_pages(address: int) -> int:
    """How many of the mapping at this address are huge."""
    mapping = Path("/proc/self/smaps").read_text().partition(f"\n{address:x}-")[2]
    return int(mapping.partition("AnonHugePages:")[2].split()[0]) * 1024 // LARGE


def test_large_pages_are_broken_as_told() -> None:
    """Alone, its content kept for a later one, alone but for a page, the same, zero, and equal to the second."""
    pages = np.random.default_rng(6).integers(0, 256, (6, LARGE // PAGE, PAGE), np.uint8)
    pages[3, 7] = pages[2, 9]
    pages[4] = 0
    pages[5] = pages[1]
    size = pages.nbytes
    with ksm.stepped() as kernel, mmap.mmap(-1, 2 * size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        view = np.frombuffer(memory, np.uint8)
        address = view.ctypes.data
        start = -address % LARGE
        # Marked where it is aligned, it is a mapping of its own.
        memory.madvise(mmap.MADV_HUGEPAGE, start, size)
        memory.madvise(mmap.MADV_MERGEABLE, start, size)
        view[start : start + size] = pages.reshape(-1)
        if huge_pages(address + start) < 6:
            pytest.skip("the kernel gave no huge pages")
        cost = huge_page_cost(pagedup.find_duplicates(view[start : start + size]))
        kernel.converge()
        left = huge_pages(address + start)
        del view
    assert (cost.pages, cost.with_saving, cost.broken_by_ksm) == (6, 3, 5)
    assert left == cost.pages - cost.broken_by_ksm


def test_time_to_converge() -> None:
    """At its default pace two scans take what is said, or a little longer, as the kernel rounds its sleep up."""
    n = 20_000
    pages = np.random.default_rng(5).integers(0, 256, (n // 2, PAGE), np.uint8).repeat(2, axis=0)
    with ksm.stepped(AT_DEFAULT_PACE), mergeable(pages) as memory:
        found = predict(memory)
        begin = time.monotonic()
        (ksm.KSM / "run").write_text("1")
        while int(ksm.read("pages_sharing")) < found.as_shipped.pages_sharing:
            assert time.monotonic() - begin < 60
            time.sleep(0.05)
        took = time.monotonic() - begin
    assert found.default_pace.seconds * 0.9 < took < found.default_pace.seconds * 1.6


def test_scan_cost() -> None:
    """What a page costs is measured, and of the order of what is reckoned with."""
    costs = scan_cost.scan_costs(1 << 14, 2)
    mean = sum(cpu for cpu, _ in costs) / 2
    assert predict_ksm(pagedup.find_duplicates(bytes(PAGE))).default_pace.cpu > 0
    assert 0.1 < mean / 3.5e-6 < 10
