"""`python -m dedupcore`: what is in use, and how to build against it."""

import os
import sys
from pathlib import Path

import pytest

import dedupcore
from tests.processes import module_flags, run, succeed

RUNGS = ["avx2"]  # from the lowest


def printed(disabled: str) -> dict[str, str]:
    text = succeed([sys.executable, "-P", "-m", "dedupcore"], {"DEDUPCORE_DISABLE_CPU": disabled})
    return dict(line.split(maxsplit=1) for line in text.splitlines())


def test_what_is_printed_is_so() -> None:
    lines = printed("")
    assert list(lines) == ["dedupcore", "cpu", "threads", "include", "cflags", "libs"]
    assert lines["dedupcore"].rstrip() == f"{dedupcore.version}, ABI {dedupcore.abi_version}"
    assert lines["threads"].strip() == str(dedupcore.available_threads())
    assert (Path(lines["include"].strip()) / "dedupcore.h").is_file()
    assert (Path(lines["include"].strip()) / "dedupcore_api.h").is_file()
    assert lines["cflags"].strip().split() == module_flags("--cflags") == [f"-I{dedupcore.get_include()}"]
    assert lines["libs"].strip().split() == module_flags("--libs")
    assert (Path(dedupcore.get_library()) / "libdedupcore.a").is_file()


def test_both_kinds_of_flags_at_once() -> None:
    assert succeed([sys.executable, "-P", "-m", "dedupcore", "--cflags", "--libs"]).split() == [
        *module_flags("--cflags"),
        *module_flags("--libs"),
    ]


def test_an_unknown_option_is_refused() -> None:
    done = run([sys.executable, "-P", "-m", "dedupcore", "--nonsense"])
    assert done.returncode == 2
    assert "--nonsense" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("disabled", "used"),
    [
        ("", RUNGS),
        ("all", []),
        ("avx2", []),
        ("none-such", RUNGS),
        ("avx", RUNGS),
        ("avx22", RUNGS),
        ("al", RUNGS),
        ("none-such,avx2", []),
        ("none-such, avx2 ,x", []),
        (",,", RUNGS),
        ("avx2,all", []),
    ],
)
def test_rungs_that_are_turned_off(disabled: str, used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    detected = dedupcore.cpu_detected()
    assert set(detected) <= set(RUNGS)
    expected = [name for name in used if name in detected]
    line = printed(disabled)["cpu"].strip()
    assert line.startswith(f"{', '.join(expected) or 'baseline'} in use; detected: {', '.join(detected) or 'baseline'}")
    monkeypatch.setenv("DEDUPCORE_DISABLE_CPU", disabled)  # read at each call
    assert dedupcore.cpu_used() == expected


@pytest.mark.skipif(not os.path.exists("/proc/cpuinfo"), reason="no /proc/cpuinfo to compare with")
def test_what_is_detected_is_what_the_kernel_says() -> None:
    words = Path("/proc/cpuinfo").read_text().split()
    assert dedupcore.cpu_detected() == [name for name in RUNGS if name in words]


def test_threads_follow_affinity() -> None:
    code = (
        "import os, sys, dedupcore; os.sched_setaffinity(0, [int(sys.argv[1])]); print(dedupcore.available_threads())"
    )
    assert succeed([sys.executable, "-P", "-c", code, str(min(os.sched_getaffinity(0)))]).strip() == "1"
