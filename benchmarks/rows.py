"""The measurements, one function a row of the table of floors; each yields one or more lines of it."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import dedupcore
from benchmarks import data, native, peers, realram
from benchmarks.data import Bytes
from benchmarks.in_place import in_place, in_place_ksm
from benchmarks.layouts import layouts
from benchmarks.live import live
from benchmarks.measure import Outcome, rounds_of, silently
from benchmarks.memory import allocate, available_bytes, huge_pages
from benchmarks.policies import policies, policies_ksm
from benchmarks.pool import pool
from benchmarks.settings import Settings
from benchmarks.simulate import simulate
from benchmarks.swap import swap
from benchmarks.tlb import tlb
from benchmarks.touch import touch
from pagedup import Duplicates, find_duplicates, open_sources

_ROOT = Path(__file__).resolve().parent.parent
_FRAME = 4096
_FACTORS = (4, 4, 32, 512)  # 4K to 16K, 64K, 2M and 1G
_MIB, _GIB = 1 << 20, 1 << 30


def real(settings: Settings) -> Iterator[Outcome]:
    """Real RAM against reading it once, and against what must be read of it."""
    ram, composition = settings.real()
    settings.described["pages under it"] = huge_pages()
    memory, reader = ram.memory, settings.reader(ram.memory)
    unique = np.random.default_rng(0).permutation(composition.unique)
    must_read = 1 - len(unique) / composition.n_frames
    times = rounds_of(
        {
            "find": lambda: find_duplicates(ram.guests, threads=1),
            "read": lambda: native.read(memory, reader),
            "touch": lambda: native.touch(memory, unique, _FRAME),
            "duplicates": lambda: native.read_frames(memory, composition.duplicates, _FRAME, reader),
        },
        settings.rounds,
    )
    speeds = {side: f"{memory.nbytes / min(t[side] for t in times) / 1e9:.1f} GB/s" for side in ("find", "read")}
    miss = min(t["touch"] for t in times) / max(1, len(unique)) * 1e9
    yield Outcome(
        "real",
        f"real RAM: speed / reading it once ({reader})",
        [t["read"] / t["find"] for t in times],
        0.95,
        note=f"best: {speeds['find']}, reading {speeds['read']}",
    )
    share = len(composition.duplicates) / composition.n_frames
    yield Outcome(
        "real",
        "(for comparison: duplicates read in the order of their originals / as one stream)",
        [share * t["read"] / t["duplicates"] for t in times],
        note="speed, without comparing anything",
    )
    limits = [(must_read * t["read"] + t["touch"]) / t["find"] for t in times]
    yield Outcome(
        "real",
        "real RAM: speed / its must-read limit",
        limits,
        0.8,
        note=f"{100 * must_read:.1f} % must be read; a missed line takes {miss:.0f} ns",
    )


def frame_peers(settings: Settings) -> Iterator[Outcome]:
    """Real RAM against what people use."""
    ram, composition = settings.real()
    for (name, peer), floor in zip(peers.FRAME_PEERS.items(), (3.5, 20, 40), strict=True):
        memory, note = ram.memory, "all frames"
        if peer is peers.numpy_unique:  # holds two copies of it and sorts
            n_frames = min(composition.n_frames, int(0.4 * available_bytes()) // _FRAME)
            memory = memory[: n_frames * _FRAME]
            note = f"both sides: the first {n_frames:,} frames" if n_frames < composition.n_frames else note
        settings.say(f"{name} ({note})")
        times = rounds_of(_sides(memory, peer), settings.rounds, check=_same_classes)
        yield Outcome("peers", f"real RAM: speed / {name}", [t["peer"] / t["find"] for t in times], floor, note=note)


def sizes(settings: Settings) -> Iterator[Outcome]:
    """All page sizes against 4K alone, all guests as one so that there are pages of 1 GiB."""
    ram, _ = settings.real()
    found: list[Duplicates] = []

    def find() -> None:
        found[:] = [find_duplicates(ram.memory, threads=1)]

    def coarsen() -> Duplicates:
        coarse = found[0]
        for factor in _FACTORS:
            coarse = coarse.coarsen(factor)
        return coarse

    find()
    times = rounds_of({"find": find, "coarsen": coarsen}, settings.rounds)
    yield Outcome(
        "sizes",
        "real RAM: time of all five page sizes / of 4K alone",
        [1 + t["coarsen"] / t["find"] for t in times],
        1.05,
        "at most",
    )
    direct = find_duplicates(ram.memory[: ram.memory.nbytes // (2 * _MIB) * 2 * _MIB], frame_size=2 * _MIB)
    same = np.array_equal(direct.canonical, found[0].coarsen(512).canonical)
    yield Outcome(
        "sizes", "direct 2 MiB frames equal coarsen(512)", [float(same)], 1, note=f"{direct.n_frames:,} frames"
    )


def threads(settings: Settings) -> Iterator[Outcome]:
    """Two threads against one, and what the machine's memory gives two readers."""
    ram, _ = settings.real()
    if len(os.sched_getaffinity(0)) < 2:
        yield Outcome("threads", "real RAM: two threads / one", [], note="there is one CPU only")
        return
    reader = settings.reader(ram.memory)
    times = rounds_of(
        {
            "one": lambda: find_duplicates(ram.guests, threads=1),
            "two": lambda: find_duplicates(ram.guests, threads=2),
            "read": lambda: native.read(ram.memory, reader),
            "read twice": lambda: _read_in_two(ram.memory, reader),
        },
        settings.rounds,
        cpus=2,
    )
    yield Outcome("threads", "real RAM: two threads / one", [t["one"] / t["two"] for t in times], 1.7)
    yield Outcome(
        "threads", "(for comparison: reading, two threads / one)", [t["read"] / t["read twice"] for t in times]
    )


def scan(settings: Settings) -> Iterator[Outcome]:
    """The command, as a process from start to end, against cat."""
    paths = [str(path) for path in settings.dump_paths()]
    command = [sys.executable, "-P", "-m", "pagedup", "scan", "--json", *paths]
    default = len(os.sched_getaffinity(0))
    times = rounds_of(
        {
            "cat": lambda: silently(["cat", *paths]),
            "one": lambda: silently([*command, "--threads", "1"]),
            "default": lambda: silently(command),
        },
        settings.rounds,
        cpus=default,
    )
    for side, threads, bound in (("one", "one thread", 2.5), ("default", f"default, {default} CPUs", None)):
        yield Outcome(
            "scan",
            f"pagedup scan of dumps in the page cache: time / cat ({threads})",
            [t[side] / t["cat"] for t in times],
            bound,
            "at most",
        )


def elf(settings: Settings) -> Iterator[Outcome]:
    """An ELF core against the raw dump of the same guests, whose segments begin anywhere in the file."""
    raw = settings.dump_paths()
    with tempfile.TemporaryDirectory(dir=realram.BUILD) as folder:
        cores = [Path(folder, f"{path.stem}.elf") for path in raw]
        for path, core in zip(raw, cores, strict=True):
            data.write_core(path, core)

        def find(paths: list[Path]) -> Duplicates:
            with ExitStack() as stack:
                sources = [stack.enter_context(source) for source in open_sources([str(path) for path in paths])]
                return find_duplicates([source.extents for source in sources], threads=1)

        times = rounds_of({"raw": lambda: find(raw), "elf": lambda: find(cores)}, settings.rounds, check=_same_numbers)
    yield Outcome(
        "elf", "ELF cores, unaligned in the file: speed / raw dumps", [t["raw"] / t["elf"] for t in times], 0.9
    )


def html(settings: Settings) -> Iterator[Outcome]:
    """What --html takes beyond the scan."""
    command = [sys.executable, "-P", "-m", "pagedup", "scan", "--json", *map(str, settings.dump_paths())]
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder, "report.html")
        times = rounds_of(
            {"scan": lambda: silently(command), "html": lambda: silently([*command, "--html", str(page)])},
            settings.rounds,
            cpus=len(os.sched_getaffinity(0)),
        )
        size = page.stat().st_size
    yield Outcome(
        "html",
        "pagedup scan: seconds that --html takes beyond the scan",
        [t["html"] - t["scan"] for t in times],
        3,
        "at most",
        note=f"a page of {size:,} bytes",
    )


def unique(settings: Settings) -> Iterator[Outcome]:
    """Pages that all differ, against reading them once."""
    settings.say("making unique pages")
    memory = data.unique(settings.scaled(2 * _GIB // _FRAME), huge=settings.huge)
    reader = settings.reader(memory)
    times = rounds_of(
        {"find": lambda: find_duplicates(memory, threads=1), "read": lambda: native.read(memory, reader)},
        settings.rounds,
    )
    yield Outcome(
        "unique",
        "unique pages: speed / reading them once",
        [t["read"] / t["find"] for t in times],
        3.5,
        note=f"best: {memory.nbytes / min(t['find'] for t in times) / 1e9:.0f} GB/s",
    )


def scale(settings: Settings) -> Iterator[Outcome]:
    """Throughput on eight times the frames."""
    n_frames = settings.scaled(16 * _GIB // _FRAME)
    settings.say(f"making {n_frames:,} pages, half of them zero, a fifth copies")
    memory = data.mixed(n_frames, huge=settings.huge)
    part = memory[: memory.nbytes // 8]
    times = rounds_of(
        {"all": lambda: find_duplicates(memory, threads=1), "part": lambda: find_duplicates(part, threads=1)},
        settings.rounds,
    )
    yield Outcome(
        "scale",
        f"throughput: {memory.nbytes // _FRAME:,} frames / {part.nbytes // _FRAME:,}",
        [8 * t["part"] / t["all"] for t in times],
        0.9,
    )


def adversarial(settings: Settings) -> Iterator[Outcome]:
    """Memory made to be slow, against xxh3_64 + dict, to which it is nothing special."""
    for kind in data.ADVERSARIAL:
        settings.say(f"adversarial: {kind}")
        memory = data.adversarial(kind, settings.scaled(_GIB // _FRAME), huge=settings.huge)
        times = rounds_of(_sides(memory, peers.xxh3_dict), settings.rounds, check=_same_classes)
        ratios = [t["find"] / t["peer"] for t in times]
        yield Outcome("adversarial", f"{kind}: time / xxh3_64 + dict", ratios, 3, "at most")


def names(settings: Settings) -> Iterator[Outcome]:
    """Content names against pandas."""
    if len(os.sched_getaffinity(0)) < 2:
        yield Outcome("names", "content names: two threads / pandas.factorize", [], note="there is one CPU only")
        return
    settings.say("making content names")
    names = data.names(settings.scaled(50_000_000))
    times = rounds_of(
        {
            "find": lambda: find_duplicates(names, frame_size=8, threads=2),
            "peer": lambda: peers.pandas_factorize(names),
        },
        settings.rounds,
        cpus=2,
        check=_same_classes,
    )
    yield Outcome(
        "names",
        f"{len(names) // 1_000_000} million names, two threads: speed / pandas.factorize",
        [t["peer"] / t["find"] for t in times],
        5,
    )


def materialize(settings: Settings) -> Iterator[Outcome]:
    """Content names made bytes, against memset of the same memory."""
    memory = allocate(settings.scaled(_GIB), huge=settings.huge)
    names = np.arange(1, memory.nbytes // _FRAME + 1, dtype=np.uint64)
    for texture, number in (("mixed", dedupcore.MIXED), ("noise", dedupcore.NOISE)):
        sides: dict[str, Callable[[], Any]] = {
            "materialize": partial(dedupcore.materialize, names, memory, _FRAME, number),
            "memset": partial(ctypes.memset, memory.ctypes.data, 1, memory.nbytes),
        }
        times = rounds_of(sides, settings.rounds)
        yield Outcome(
            "materialize",
            f"names made bytes, {texture}: speed / memset",
            [t["memset"] / t["materialize"] for t in times],
            0.5,
            note=f"best: {memory.nbytes / min(t['materialize'] for t in times) / 1e9:.1f} GB/s",
        )


def memory(settings: Settings) -> Iterator[Outcome]:
    """Bytes a frame that a call takes at its peak beyond the buffers, its result included."""
    pages, short = settings.scaled(4 * _GIB // _FRAME), settings.scaled(2 * _GIB // 512)
    judged = [("mixed", pages, _FRAME), ("unique", pages, _FRAME), ("names", settings.scaled(50_000_000), 8)]
    told = [(kind, short, 512) for kind in data.ADVERSARIAL]
    for kind, n_frames, frame_size in judged + told:
        settings.say(f"memory at the peak: {kind}")
        what = f"bytes a frame beside the buffers: {kind}, {n_frames:,} frames of {frame_size}"
        child = [sys.executable, "-m", "benchmarks.peak", kind, str(n_frames), str(frame_size)]
        done = subprocess.run(child, cwd=_ROOT, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            yield Outcome("memory", what, [], note="its process failed; see above")
            continue
        bound = 24 + 16 * _MIB / n_frames if (kind, n_frames, frame_size) in judged else None
        yield Outcome("memory", what, [int(done.stdout) / n_frames], bound, "at most")


ROWS: dict[str, Callable[[Settings], Iterator[Outcome]]] = {
    # First those that share the real RAM, which is freed then.
    "real": real,
    "peers": frame_peers,
    "sizes": sizes,
    "threads": threads,
    "scan": scan,
    "elf": elf,
    "html": html,
    "live": live,
    "in_place": in_place,
    "in_place_ksm": in_place_ksm,
    "unique": unique,
    "scale": scale,
    "adversarial": adversarial,
    "names": names,
    "layouts": layouts,
    "pool": pool,
    "touch": touch,
    "tlb": tlb,
    "simulate": simulate,
    "policies": policies,
    "policies_ksm": policies_ksm,
    "swap": swap,
    "materialize": materialize,
    "memory": memory,
}
ON_REAL_MEMORY = ("real", "peers", "sizes", "threads", "scan", "elf", "html")


def _same_numbers(results: dict[str, Any]) -> None:
    if results["raw"].n_distinct != results["elf"].n_distinct or results["raw"].n_zero != results["elf"].n_zero:
        raise AssertionError("the two forms of a dump differ")


def _sides(memory: Bytes, peer: Callable[[Bytes], Any]) -> dict[str, Callable[[], Any]]:
    return {"find": lambda: find_duplicates(memory, threads=1), "peer": lambda: peer(memory)}


def _same_classes(results: dict[str, Any]) -> None:
    """Both sides must have done the same work."""
    if not peers.same_classes(results["find"].canonical, results["peer"][0]):
        raise AssertionError("the two sides found different classes")


def _read_in_two(memory: Bytes, reader: str) -> None:
    half = memory.nbytes // 1024 * 512
    other = threading.Thread(target=native.read, args=(memory[half:], reader))
    other.start()
    native.read(memory[:half], reader)
    other.join()
