"""The engine does the work it must and no more; and the guard that says so notices when it does more."""

import os
import shutil
from pathlib import Path

import pytest

import dedupcore
from tests.guard import guard
from tests.processes import CORE, succeed

OPTIMIZED = not any(
    os.environ.get(f"DEDUPCORE_{kind}", "0") not in ("", "0") for kind in ("SANITIZE", "DEBUG", "COVERAGE")
)
counted = pytest.mark.skipif(not OPTIMIZED, reason="instructions are counted in optimized builds")


def rungs() -> list[str]:
    return ["baseline", *dedupcore.cpu_detected()]


@pytest.mark.parametrize("n", [2, 255, 256, 257, 513, guard.FRAMES, guard.FRAMES + 1, 30000])
@pytest.mark.parametrize("data_set", guard.DATA_SETS)
def test_exact_work(frames: Path, data_set: str, n: int) -> None:
    if data_set == "pairs" and n % 2:
        n += 1
    if data_set == "names" and n < 3:
        n = 3
    guard.check_work(frames, data_set, n)


@pytest.mark.parametrize("data_set", guard.DATA_SETS)
def test_exact_work_on_every_rung(frames: Path, data_set: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for disabled in ["all", "avx2", ""]:
        monkeypatch.setenv("DEDUPCORE_DISABLE_CPU", disabled)
        guard.check_work(frames, data_set)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize("rung", ["baseline", "avx2"])
@pytest.mark.parametrize("data_set", guard.DATA_SETS)
def test_instructions(frames: Path, data_set: str, rung: str, tmp_path: Path) -> None:
    if rung not in rungs():
        pytest.skip(f"this CPU has no {rung}")
    guard.check_instructions(frames, data_set, rung, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize("step", guard.GUESTS)
def test_instructions_of_a_guest(guests: Path, step: str, tmp_path: Path) -> None:
    guard.check_step(guests, step, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize("step", guard.POOL)
def test_instructions_of_a_pool(pool: Path, step: str, tmp_path: Path) -> None:
    guard.check_step(pool, step, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize("step", guard.POLICIES)
def test_instructions_of_a_policy(policies: Path, step: str, tmp_path: Path) -> None:
    guard.check_step(policies, step, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize("step", guard.TLB)
def test_instructions_of_a_translation(tlb: Path, step: str, tmp_path: Path) -> None:
    guard.check_step(tlb, step, tmp_path)


@counted
@pytest.mark.valgrind
def test_a_scanner_with_nothing_to_look_at_takes_the_same_in_any_memory(policies: Path, tmp_path: Path) -> None:
    small, large = (
        n * guard.instructions(policies, "esx idle", "", tmp_path, n=n, function="step_idle") for n in (2048, 65536)
    )
    assert small == pytest.approx(large, rel=0.1)
    assert 50 < large < 1000, "less than an instruction a page"


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize("step", ["crowd leaves", "crowd joins"])
def test_a_page_takes_the_same_however_many_frames_of_its_content_have_room(
    policies: Path, step: str, tmp_path: Path
) -> None:
    function, _ = guard.POLICIES[step]
    few, many = (
        guard.instructions(policies, step, "", tmp_path, n=4 * frames, function=function) for frames in (200, 20_000)
    )
    assert many == pytest.approx(few, rel=0.1)


# --- the guard guards --------------------------------------------------------------------------------------------


def build_with(folder: Path, old: str, new: str, name: str = "frames") -> Path:
    """A program of the guard with a copy of the engine, compiled as the wheel's is, in which `old` became `new`."""
    copy = folder / "core"
    shutil.copytree(CORE, copy, ignore=shutil.ignore_patterns("*.so", "*.a", "__pycache__"))
    files = [file for file in sorted(copy.glob("*.[ch]")) if old in file.read_text()]
    assert len(files) == 1, f"{len(files)} files have: {old}"
    source = files[0].read_text()
    assert source.count(old) == 1, f"{files[0].name} has {source.count(old)} times: {old}"
    files[0].write_text(source.replace(old, new))
    flags = ["-O3", "-DNDEBUG", "-std=c11", "-fPIC", "-fvisibility=hidden", "-fno-wrapv"]
    objects = []
    for c in sorted(copy.glob("*.c")):
        objects.append(str(c.with_suffix(".o")))
        succeed(["gcc", *flags, f"-I{copy}/include", f"-I{copy}", "-c", "-o", objects[-1], str(c)])
    library = folder / "libdedupcore.a"
    succeed(["ar", "rcs", str(library), *objects])
    program = folder / name
    guard.build(program, library=library)
    return program


SIGN = "uint64_t hash = sign_samples(&job->signer, base + i * size);"


def test_planted_work_is_noticed(tmp_path: Path) -> None:
    """Frames that are alike are all hashed in full."""
    old = "return job->round == 1 && job->frame_size >= SAMPLED_FRAME_SIZE;"
    program = build_with(tmp_path, old, "(void)job; return 0;")
    guard.check_work(program, "unique")
    guard.check_work(program, "pairs")
    with pytest.raises(AssertionError, match="frames_hashed"):
        guard.check_work(program, "alike")


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize(
    ("old", "new", "data_set", "rung"),
    [
        pytest.param(
            SIGN,
            f"{SIGN} if (!hash_frame(base + i * size, size, base, 0, job->signer.key)) return;",
            "unique",
            "baseline",
            id="every frame hashed in full",
        ),
        pytest.param(
            "hash << partition_bits >> (64 - table->bits)",
            "hash % 1021",
            "unique",
            "baseline",
            id="a table that clusters",
        ),
        pytest.param(
            "size_t equal = equal_bytes(job, a, b, next_a, next_b);",
            "size_t equal = equal_bytes(job, a, b, a, b); equal = equal_bytes(job, a, b, next_a, next_b);",
            "pairs",
            "baseline",
            id="every pair compared twice",
        ),
        pytest.param("if (cpu & DEDUPCORE_CPU_AVX2)", "if (cpu > 9)", "zero", "avx2", id="a rung lost"),
    ],
)
def test_a_planted_slowdown_is_noticed(old: str, new: str, data_set: str, rung: str, tmp_path: Path) -> None:
    if rung not in rungs():
        pytest.skip(f"this CPU has no {rung}")
    program = build_with(tmp_path, old, new)
    guard.check_work(program, data_set)  # the counters are as before: only the instructions tell
    with pytest.raises(AssertionError, match="instructions a frame; at most"):
        guard.check_instructions(program, data_set, rung, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        pytest.param(
            "while (order && random_at(stream,",
            "while (order && random_at(random_at(stream, page),",
            "place",
            id="two random numbers a split",
        ),
        pytest.param(
            "random_at(stream, number) >> 32 <",
            "random_at(random_at(stream, i), i) >> 32 <",
            "name",
            id="two numbers a page",
        ),
        pytest.param(
            "random_at(stream, first + i), part", "random_at(random_at(stream, i), i), part", "draw", id="two a draw"
        ),
        pytest.param(
            "multiply_halves(counter, counter >> 32) + hiding",
            "multiply_halves(counter, counter >> 32) + multiply_halves(hiding, hiding >> 32)",
            "noise",
            id="two products a word",
        ),
        pytest.param(
            "(pair)_mm_mul_epu32((__m128i)a, (__m128i)b)",
            "(a & UINT32_MAX) * (b & UINT32_MAX)",
            "mixed",
            id="a long product",
        ),
    ],
)
def test_a_slowdown_planted_in_a_guest_is_noticed(old: str, new: str, step: str, tmp_path: Path) -> None:
    program = build_with(tmp_path, old, new, "guests")
    with pytest.raises(AssertionError, match="instructions a frame; at most"):
        guard.check_step(program, step, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        pytest.param("if (frame_size == 8) /* content names", "if (frame_size == 9) /*", "read", id="a call a name"),
        pytest.param(
            "if (store->used.level[0][store->lowest] == ~UINT64_C(0))", "if (1)", "break", id="a search for each frame"
        ),
        pytest.param(
            "if (!sorted && store->frame_size >= store->page)", "if (!sorted)", "release", id="small frames sorted"
        ),
    ],
)
def test_a_slowdown_planted_in_a_pool_is_noticed(old: str, new: str, step: str, tmp_path: Path) -> None:
    program = build_with(tmp_path, old, new, "pool")
    with pytest.raises(AssertionError, match="instructions a frame; at most"):
        guard.check_step(program, step, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        pytest.param("if (pool->frames.frame_size == 8) {", "if (0) {", "dirty", id="a call a name"),
        pytest.param("while (bits < MOST_BITS && n >> bits >= PER_CHAIN)", "while (0)", "dirty", id="long chains"),
        pytest.param("if (p->left < 8 ||", "if (1 ||", "ksm again", id="page by page"),
        pytest.param("TOGETHER = 64,", "TOGETHER = 1,", "access", id="access by access"),
        pytest.param(
            "if (store->used.level[0][store->lowest] == ~UINT64_C(0))", "if (1)", "access shared", id="a search a break"
        ),
        pytest.param(
            "if (!scan_holds(pool, g, frame, tag))", "if (1)", "crowd leaves", id="all frames with room in a chain"
        ),
        pytest.param(
            "b = nodes[a].next;\n        at = nodes[b].next;",
            "b = 0;\n        at = nodes[a].next;",
            "crowd joins",
            id="no pairs in a heap",
        ),
    ],
)
def test_a_slowdown_planted_in_a_policy_is_noticed(old: str, new: str, step: str, tmp_path: Path) -> None:
    program = build_with(tmp_path, old, new, "policies")
    with pytest.raises(AssertionError, match="instructions a frame; at most"):
        guard.check_step(program, step, tmp_path)


@counted
@pytest.mark.valgrind
@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        pytest.param(
            "static inline int lru_use", "static __attribute__((noinline)) int lru_use", "hits", id="a call a look"
        ),
        pytest.param(
            "const unsigned as = t->geometry.l2_as[r->entry];",
            "const unsigned as = t->geometry.l2_as[r->entry]; if (!is_held(t->l1[r->entry], OF_PAGES, page)) return;",
            "l2_hits",
            id="two looks in the first level",
        ),
        pytest.param("if (!t->data[0].n) {", "if (0) {", "walks", id="data caches that are none"),
        pytest.param("if (l != known || l == LEVELS - 1)", "", "nested", id="a search for each table"),
    ],
)
def test_a_slowdown_planted_in_the_tlb_is_noticed(old: str, new: str, step: str, tmp_path: Path) -> None:
    program = build_with(tmp_path, old, new, "tlb")
    with pytest.raises(AssertionError, match="instructions a frame; at most"):
        guard.check_step(program, step, tmp_path)


@counted
@pytest.mark.valgrind
def test_nothing_planted_is_not_noticed(tmp_path: Path) -> None:
    program = build_with(tmp_path, SIGN, SIGN)
    guard.check_work(program, "alike")
    guard.check_instructions(program, "unique", "baseline", tmp_path)
    guard.check_instructions(program, "alike", "baseline", tmp_path)
