"""The guard against slowdowns: exact work on data sets of frames.c, ceilings of instructions of all programs."""

import re
from pathlib import Path

from tests.processes import module_flags, succeed

HERE = Path(__file__).parent
FRAMES = 8192
SIZE, BLOCK, SAMPLES = 4096, 256, 128
TASK = (1 << 20) // SIZE  # frames a task

# Instructions a frame in dedupcore_find_duplicates: measured with GCC 12 -O3, and 10 % more.
CEILINGS: dict[str, dict[str, float]] = {
    "baseline": {
        "unique": 320,
        "zero": 747,
        "pairs": 1105,
        "alike": 1288,
        "deep": 5838,
        "speck": 818,
        "names": 169,
    },
    "avx2": {
        "unique": 320,
        "zero": 342,
        "pairs": 728,
        "alike": 1008,
        "deep": 5088,
        "speck": 603,
        "names": 169,
    },
}

# Instructions a page or frame of what guests.c runs, measured and limited likewise; there are no rungs. Not of sparse
# frames, which are the C library's memset.
GUESTS: dict[str, tuple[str, float]] = {
    "place": ("dedupcore_place", 119),
    "name": ("dedupcore_name_pages", 47),
    "draw": ("dedupcore_draw_accesses", 38.5),
    "noise": ("dedupcore_materialize", 2880),
    "one byte": ("dedupcore_materialize", 2880),
    "prefix": ("dedupcore_materialize", 2870),
    "mixed": ("dedupcore_materialize", 3110),
}

# Instructions a page of what pool.c runs, likewise; of sharing a page is one of each of its two guests.
POOL: dict[str, tuple[str, float]] = {
    "touch": ("step_write", 111),
    "write": ("step_write", 68),
    "break": ("step_write", 120),
    "read": ("step_read", 21),
    "release": ("step_release", 168),
    "share": ("step_share", 472),
    "touch_large": ("step_write", 130),
    "rebuild": ("step_rebuild", 180),
}

# Instructions a page of what policies.c runs, likewise; of "dirty", "dirty again" and "ksm" a page is one of each of
# its two guests; of a crowd every other page is one that leaves or joins.
POLICIES: dict[str, tuple[str, float]] = {
    "dirty": ("step_scan", 746),
    "dirty again": ("step_scan", 5),
    "ksm": ("step_scan", 911),
    "ksm again": ("step_scan", 9.2),
    "smart": ("step_scan", 13.4),
    "esx": ("step_scan_guest", 380),
    "access": ("step_touch", 64.5),
    "access shared": ("step_touch", 105),
    "crowd leaves": ("step_leave", 178),
    "crowd joins": ("step_join", 334),
}

# Instructions an access of what tlb.c runs, likewise.
TLB: dict[str, tuple[str, float]] = {
    "hits": ("step_access", 72.4),
    "l2_hits": ("step_access", 149.5),
    "walks": ("step_access", 245),
    "nested": ("step_access", 532),
}

STEPS = {"guests": GUESTS, "pool": POOL, "policies": POLICIES, "tlb": TLB}


def build(program: Path, *, library: Path | None = None) -> None:
    """The source of that name with the library of the installed package, or another one's."""
    flags = module_flags("--libs") if library is None else [str(library), "-pthread"]
    compiler = ["gcc", "-std=c11", "-O2", "-g", "-Wall", "-Werror", *module_flags("--cflags")]
    succeed([*compiler, "-o", str(program), str(HERE / f"{program.name}.c"), *flags])


def expected_work(data_set: str, n: int) -> dict[str, int]:
    """What must be read, by the definition of the data set and of the algorithm."""
    zero, distinct, signed, hashed, compared, compared_bytes, not_read = {
        # Only samples are read.
        "unique": (0, n, n * SAMPLES, 0, 0, 0, n),
        # Each task reads its frames as one stream, after a look at the first one's samples.
        "zero": (n, 0, n * SIZE + -(-n // TASK) * SAMPLES, 0, 0, 0, 0),
        # Every duplicate is compared once, in full.
        "pairs": (0, n // 2, n * SAMPLES, 0, n // 2, n // 2 * SIZE, 0),
        # Every frame is compared once, up to the block where it differs from the first.
        "alike": (0, n, n * SAMPLES, 0, n - 1, (n - 1) * 6 * BLOCK, n),
        # Then once more, with the second; and the rest is hashed in full once.
        "deep": (0, n, n * SAMPLES, n - 2, 2 * n - 3, (n - 1) * 6 * BLOCK + (n - 2) * 10 * BLOCK, 2),
        # Zero up to a block, which is read to sign the frame.
        "speck": (0, n, sum(SAMPLES + (2 + i % 14) * BLOCK for i in range(n)), 0, 0, 0, n),
        # Names are signed by all of their bytes; looking one up compares it.
        "names": (0, n * 4 // 10, n * 8, 0, n - n * 4 // 10, (n - n * 4 // 10) * 8, 0),
    }[data_set]
    return {
        "n_zero": zero,
        "n_distinct": distinct,
        "frames_signed": n,
        "bytes_signed": signed,
        "frames_hashed": hashed,
        "bytes_hashed": hashed * SIZE,
        "frames_compared": compared,
        "bytes_compared": compared_bytes,
        "frames_not_read": not_read,
    }


DATA_SETS = ["unique", "zero", "pairs", "alike", "deep", "speck", "names"]


def check_work(program: Path, data_set: str, n: int = FRAMES) -> None:
    """Raises AssertionError when the program does other work than it must."""
    lines = succeed([str(program), data_set, str(n)]).splitlines()
    done = {name: int(number) for name, number in (line.split() for line in lines)}
    expected = expected_work(data_set, n)
    assert done.keys() == expected.keys()
    differ = [f"{name} is {done[name]}, not {right}" for name, right in expected.items() if done[name] != right]
    assert not differ, f"{data_set}: {'; '.join(differ)}"


def instructions(
    program: Path,
    data_set: str,
    disabled: str,
    folder: Path,
    n: int = FRAMES,
    function: str = "dedupcore_find_duplicates",
) -> float:
    """Instructions a frame, by callgrind."""
    output = folder / "callgrind.out"
    options = ["--tool=callgrind", f"--toggle-collect={function}", f"--callgrind-out-file={output}"]
    succeed(["valgrind", *options, str(program), data_set, str(n)], {"DEDUPCORE_DISABLE_CPU": disabled})
    total = re.search(r"^(?:totals|summary): (\d+)", output.read_text(), re.MULTILINE)
    assert total, "callgrind counted nothing"
    return int(total[1]) / n


def check_instructions(program: Path, data_set: str, rung: str, folder: Path) -> None:
    """Raises AssertionError when grouping a frame takes more instructions than it may."""
    count = instructions(program, data_set, {"baseline": "all", "avx2": ""}[rung], folder)
    _check_ceiling(f"{data_set} on {rung}", count, CEILINGS[rung][data_set])


def check_step(program: Path, step: str, folder: Path) -> None:
    """Raises AssertionError when a step of one of STEPS' programs takes more instructions a page than it may."""
    function, ceiling = STEPS[program.name][step]
    _check_ceiling(step, instructions(program, step, "", folder, function=function), ceiling)


def _check_ceiling(what: str, count: float, ceiling: float) -> None:
    assert count <= ceiling, f"{what}: {count:.1f} instructions a frame; at most {ceiling} are right"
    # Far below, either the ceiling is out of date and guards nothing, or nothing was counted.
    assert count > ceiling / 2, f"{what}: {count:.1f} instructions a frame; lower the ceiling of {ceiling}"
