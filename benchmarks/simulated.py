"""What simulated guests give for each published figure: fleets of guests, and what is counted of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from benchmarks.figures import FIGURES
from pagedup import Duplicates, Summary, summarize
from pagedup.guests import Content, FileCache, GuestSpec, ProcessSet, generate, preset, read_spec
from pagedup.sharing.find_names import find_duplicate_names

Values = dict[str, float]
"""By the key of a figure; in percent, but for ratios."""

_FLEETS = Path(__file__).resolve().parent / "fleets"


def simulate(seed: int, keys: Sequence[str] | None = None) -> Values:
    """The values of all figures, or of these."""
    wanted = [figure.key for figure in FIGURES] if keys is None else keys
    values: Values = {}
    for fleet, told in _TOLD.items():
        if set(told) & set(wanted):
            values |= fleet(seed)
    return {key: values[key] for key in wanted}


def _identical_linux(seed: int) -> Values:
    spec = read_spec(str(_FLEETS / "linux-2001.toml"))
    alone = summarize(_found(spec, 1, seed))
    ten = summarize(_found(spec, 10, seed))
    shared = ten.pages_shared + ten.pages_sharing + ten.zero
    return {
        "linux-one": _percent(_saved(alone), alone.frames),
        "linux-one-zero": _percent(alone.saved_zero, _saved(alone)),
        "linux-ten": _percent(shared, ten.frames),
    }


def _mix(seed: int) -> Values:
    # The caches are as large as leaves the zero pages of the source (mix-zero).
    debian = replace(
        preset("debian-server"), aslr=False, file_cache=FileCache(size="165 MiB", files="1 GiB", repeated=0.07)
    )
    mix = summarize(_found([replace(preset("windows-xp"), memory="512 MiB"), debian, _other_linux(debian)], 1, seed))
    return {
        "mix-zero": _percent(mix.zero, mix.frames),
        "mix-sharable": _percent(mix.pages_shared + mix.pages_sharing, mix.frames),
        "mix-unique": _percent(mix.pages_unshared, mix.frames),
        "mix-saved": _percent(_saved(mix), mix.frames),
    }


def _other_linux(spec: GuestSpec) -> GuestSpec:
    """Another distribution: as large, but other files, and another kernel with other structures."""
    executables = {images.name for images in spec.images if images.role == "executable"}
    return replace(
        spec,
        name="other",
        kernel=replace(spec.kernel, content=replace(spec.kernel.content, common=0.0)),
        images=tuple(replace(images, name=f"other-{images.name}") for images in spec.images),
        processes=tuple(
            replace(
                own,
                name=f"other-{own.name}",
                executable=f"other-{own.executable}" if own.executable in executables else "",
            )
            for own in spec.processes
        ),
        file_cache=replace(spec.file_cache, files="1025 MiB"),  # files of another size are other files
    )


_UNLIKE = ("windows-xp", "windows-7-x64", "windows-10", "debian-server", "debian-desktop")


def _unlike(seed: int) -> Values:
    found = summarize(_found([preset(name) for name in _UNLIKE], 1, seed))
    return {
        "unlike-nonzero": _percent(found.saved_nonzero, found.frames),
        "unlike-within": _percent(found.saved_within_guests, found.saved_nonzero),
    }


def _diverse(seed: int) -> Values:
    names = (*_UNLIKE, "windows-server")
    found = summarize(_found([replace(preset(name), hours=24) for name in names], 1, seed))
    return {
        "diverse": _percent(_saved(found), found.frames),
        "diverse-nonzero": _percent(found.saved_nonzero, found.frames),
    }


def _desktops(seed: int) -> Values:
    xp, just_started = (
        summarize(_found(spec, 10, seed)) for spec in (preset("windows-xp"), replace(preset("windows-7-x86"), hours=0))
    )
    seven = _found(preset("windows-7-x86"), 10, seed)
    values = {"xp": xp, "near-identical": just_started, "seven": summarize(seven)}
    values["seven-large"] = summarize(seven.coarsen(512))
    return {key: _percent(_saved(summary), summary.frames) for key, summary in values.items()}


def _large(seed: int) -> Values:
    found = summarize(_found(preset("windows-server"), 2, seed).coarsen(512))
    return {"large": _percent(found.saved_zero, _saved(found))}


def _aslr(seed: int) -> Values:
    costs = {}
    for bits in ("x86", "x64"):
        spec = preset(f"windows-7-{bits}")
        on, off = (summarize(_found(replace(spec, aslr=aslr), 4, seed)).saved_nonzero for aslr in (True, False))
        costs[bits] = _percent(off - on, off)
    return {"aslr-x86": costs["x86"], "aslr-x64": costs["x64"], "aslr-ratio": costs["x86"] / costs["x64"]}


def _eight(seed: int) -> Values:
    return _by_page_size("eight", _found([_debian(*workload, memory="512 MiB") for workload in _EIGHT], 2, seed))


def _five(seed: int) -> Values:
    return _by_page_size("five", _found([_debian(*workload, memory="384 MiB") for workload in _FIVE], 1, seed))


_Workload = tuple[str, str, str, bool]
"""A workload's name, the heap of its one process, the file cache, and whether the heap is in large pages."""

# Sizes as in the dumps that debian-server's sources tell of, but for the cache of the web server, tuned to eight-zero.
_EIGHT: tuple[_Workload, ...] = (
    ("idle", "1 MiB", "2 MiB", False),
    ("redis", "42 MiB", "10 MiB", False),
    ("python", "67 MiB", "10 MiB", False),
    ("web", "8 MiB", "370 MiB", False),
)
# Nobody wrote down what these held. The sizes are assumed from their names, not fitted, but with the published share of
# zero pages in sight, which therefore judges little.
_FIVE: tuple[_Workload, ...] = (
    ("idle", "1 MiB", "2 MiB", False),
    ("sort", "100 MiB", "60 MiB", False),
    ("mixed-1", "100 MiB", "40 MiB", True),
    ("mixed-2", "100 MiB", "40 MiB", True),
    ("churn", "40 MiB", "30 MiB", False),
)


def _debian(name: str, heap: str, cache: str, large: bool, *, memory: str) -> GuestSpec:
    """The server with one process instead of its services."""
    server = preset("debian-server")
    process = ProcessSet(
        name=name, executable="programs", libraries=20, heap=heap, content=Content(repeated=0.01), large_pages=large
    )
    return replace(
        server, name=name, memory=memory, processes=(process,), file_cache=replace(server.file_cache, size=cache)
    )


def _by_page_size(fleet: str, found: Duplicates) -> Values:
    small = summarize(found)
    values = {
        f"{fleet}-zero": _percent(small.zero, small.frames),
        f"{fleet}-4k": _percent(small.saved_nonzero, small.nonzero),
        f"{fleet}-within": _percent(small.saved_within_guests, small.saved_nonzero),
    }
    for size, factor in (("16k", 4), ("64k", 16), ("2m", 512)):
        large = summarize(found.coarsen(factor))
        values[f"{fleet}-{size}"] = _percent(large.saved_nonzero, large.nonzero)
    return values


def _found(specs: GuestSpec | Sequence[GuestSpec], count: int, seed: int) -> Duplicates:
    return find_duplicate_names(generate(specs, count, seed))


def _saved(summary: Summary) -> int:
    return summary.saved_zero + summary.saved_nonzero


def _percent(part: float, whole: float) -> float:
    return 100 * part / whole if whole else 0.0


_TOLD: dict[Callable[[int], Values], tuple[str, ...]] = {
    _identical_linux: ("linux-one", "linux-one-zero", "linux-ten"),
    _mix: ("mix-zero", "mix-sharable", "mix-unique", "mix-saved"),
    _unlike: ("unlike-nonzero", "unlike-within"),
    _diverse: ("diverse", "diverse-nonzero"),
    _desktops: ("xp", "seven", "seven-large", "near-identical"),
    _large: ("large",),
    _aslr: ("aslr-x86", "aslr-x64", "aslr-ratio"),
    _eight: ("eight-zero", "eight-4k", "eight-16k", "eight-64k", "eight-2m", "eight-within"),
    _five: ("five-zero", "five-4k", "five-2m", "five-within"),
}
"""Which figures a fleet tells, so that no more is simulated than was asked for."""
