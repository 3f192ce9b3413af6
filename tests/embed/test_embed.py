"""The embedding contract: what others build against the installed package compiles, links and runs."""

import importlib.metadata
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest

import dedupcore
from tests.embed.building import HERE, build_extension
from tests.processes import module_flags, run, run_python, sanitizer_flags, succeed, under_sanitizer

MEMORY = "memory = b'A' * 4096 + bytes(4096) + b'A' * 4096 + b'B' * 4096"


def in_folder(folder: Path, code: str) -> "subprocess.CompletedProcess[str]":
    return run_python(f"import sys; sys.path.insert(0, {str(folder)!r}); {MEMORY}\n{code}")


def prints(folder: Path, code: str) -> str:
    done = in_folder(folder, code)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


# --- Cython ------------------------------------------------------------------------------------------------------


def test_a_cython_extension_finds_duplicates(downstream: Path) -> None:
    assert prints(downstream, "import downstream; print(downstream.find(memory, 4096, 1))") == "([0, 1, 0, 3], 1, 2, 1)"


def test_a_cython_extension_is_told_what_is_wrong(downstream: Path) -> None:
    done = in_folder(downstream, "import downstream; downstream.find(memory, 4095, 1)")
    assert done.returncode == 1
    assert "ValueError: an argument is out of its range" in done.stderr


def test_a_cython_extension_runs_a_job_step_by_step(downstream: Path) -> None:
    steps = prints(downstream, "import downstream; print(downstream.step_by_step(memory, 4096))")
    assert steps == "(['sign', 'partition', 'group', 'compare'], [0, 1, 0, 3])"


def test_a_cython_extension_counts_maps_and_asks_for_the_cpu(downstream: Path, tmp_path: Path) -> None:
    assert prints(downstream, "import downstream; print(downstream.count([0, 0, 2, 0], [(0, 2), (2, 4)]))") == (
        "([3, 0, 1, 0], [1, 2])"
    )
    image = tmp_path / "image"
    image.write_bytes(b"*" * 100)
    code = f"file = open({str(image)!r}); print(downstream.first_byte(file.fileno(), 100), downstream.cpu()[2])"
    assert prints(downstream, f"import downstream; {code}") == "(42, 0) avx2"


def test_a_cython_extension_hashes_and_matches_frames(downstream: Path) -> None:
    code = "a, zero, b, c = downstream.hashes(memory, 4096); print(zero, a == b, a == c)"
    assert prints(downstream, f"import downstream; {code}") == "0 True False"
    assert prints(downstream, "import downstream; print(downstream.like_the_first(memory, 4096))") == "[1, 0, 1, 0]"


def test_a_cython_extension_simulates_a_guest(downstream: Path) -> None:
    """Every name stands in the last 8 bytes of its page."""
    code = "names, last, number = downstream.simulated_guest(7, 64); print(sorted(names), list(last) == names, number)"
    out = np.zeros(1, np.uint64)
    dedupcore.random_numbers(7, out)
    assert prints(downstream, f"import downstream; {code}") == f"[0, 1, 2, 3] True {out[0]}"


def test_a_cython_extension_has_a_pool(downstream: Path) -> None:
    assert prints(downstream, "import downstream; print(downstream.pool(b'abab'))") == "(2, [0, 1, 0, 1], b'bbbbbbbb')"


def test_a_cython_extension_has_policies(downstream: Path) -> None:
    assert prints(downstream, "import downstream; print(downstream.policies())") == "[(1, 2), (1, 4), (1, 4)]"


def test_a_cython_extension_has_large_pages(downstream: Path) -> None:
    expected = "([512, 1024], [(0, 0, 511, 1), (1, 0, 511, 1)], 1)"
    assert prints(downstream, "import downstream; print(downstream.large_pages())") == expected


def test_a_cython_extension_draws_accesses(downstream: Path) -> None:
    assert prints(downstream, "import downstream; print(downstream.accesses(1))") == "([9, 9], [0, 0])"


def test_a_cython_extension_pages_out(downstream: Path) -> None:
    assert prints(downstream, "import downstream; print(downstream.paging())") == "([2, 2, 0], [1, 1, 0], 1, 7)"


def test_a_cython_extension_translates(downstream: Path) -> None:
    code = "print([downstream.references(*sizes) for sizes in [(0, 0), (0, 1), (1, 1)]])"
    assert prints(downstream, f"import downstream; {code}") == "[(2, 48), (2, 38), (2, 30)]"


def test_it_shares_nothing_but_the_table(downstream: Path) -> None:
    """The extension links no part of the engine: all calls go through the capsule."""
    (library,) = downstream.glob("downstream*.so")
    symbols = succeed(["nm", "-D", str(library)])
    assert "PyCapsule_Import" in symbols
    assert "dedupcore_" not in symbols


# --- the table ---------------------------------------------------------------------------------------------------

# Puts another table in the place of the engine's: argv: version, size less that of the real one.
OTHER_TABLE = """
import ctypes, sys
import dedupcore._dedupcore as engine
new = ctypes.pythonapi.PyCapsule_New
new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
get = ctypes.pythonapi.PyCapsule_GetPointer
get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
name = b"dedupcore._dedupcore.api"
real = (ctypes.c_uint32 * 2).from_address(get(engine.api, name))
copy = ctypes.string_at(ctypes.addressof(real), real[1]) + bytes(64)
table = (ctypes.c_uint8 * len(copy)).from_buffer_copy(copy)
header = ctypes.cast(table, ctypes.POINTER(ctypes.c_uint32))
header[0] += VERSION
header[1] += SIZE
engine.api = new(ctypes.addressof(table), name, None)
import downstream
print(downstream.find(memory, 4096, 1))
"""


def other_table(version: int, size: int) -> str:
    return OTHER_TABLE.replace("VERSION", str(version)).replace("SIZE", str(size))


@pytest.mark.parametrize(("version", "size"), [(1, 0), (-1, 0), (0, -8), (1, 64)])
def test_a_table_of_another_kind_is_refused(downstream: Path, version: int, size: int) -> None:
    done = in_folder(downstream, other_table(version, size))
    assert done.returncode == 1
    assert "ImportError: dedupcore: built for ABI 1 with a table of" in done.stderr
    assert f"but ABI {1 + version} with" in done.stderr


def test_a_longer_table_is_taken(downstream: Path) -> None:
    assert prints(downstream, other_table(0, 64)) == "([0, 1, 0, 3], 1, 2, 1)"


def test_without_the_table(downstream: Path) -> None:
    done = in_folder(downstream, "import dedupcore._dedupcore as engine; del engine.api; import downstream")
    assert done.returncode == 1
    assert "AttributeError" in done.stderr or "ImportError" in done.stderr


# --- C -----------------------------------------------------------------------------------------------------------


def test_a_c_program_uses_the_library(program: Path) -> None:
    assert succeed([str(program)]).strip() == dedupcore.version == importlib.metadata.version("pagedup")


@pytest.mark.skipif(under_sanitizer(), reason="the sanitizers are linked dynamically only")
@pytest.mark.parametrize("flag", ["-static", "-static-pie", "-pie", "-no-pie"])
def test_every_way_to_link(flag: str, tmp_path: Path) -> None:
    path = tmp_path / "embedder"
    source = [*module_flags("--cflags"), str(HERE / "embedder.c"), *module_flags("--libs")]
    pie = ["-fno-pie"] if flag in ("-static", "-no-pie") else ["-fPIE"]
    succeed(["gcc", "-std=c11", flag, *pie, "-o", str(path), *source])
    assert succeed([str(path)]).strip() == dedupcore.version


def test_the_library_exports_nothing_but_its_own_names() -> None:
    lines = succeed(["nm", "-g", "--defined-only", f"{dedupcore.get_library()}/libdedupcore.a"]).splitlines()
    names = {line.split()[2] for line in lines if len(line.split()) == 3}
    header = (Path(dedupcore.get_include()) / "dedupcore.h").read_text()
    public = {name for name in names if name.startswith("dedupcore_")}
    assert public, "no symbols"
    assert all(f"{name}(" in header for name in public), "a public name that the header does not declare"


def test_an_extension_in_c_takes_the_calls_from_the_capsule(tmp_path: Path) -> None:
    build_extension("capsule.c", tmp_path)
    assert prints(tmp_path, "import downstream; print(downstream.find(memory, 4096))") == "(1, 2, 3)"
    assert prints(tmp_path, "import downstream; print(downstream.pool())") == "(1, 2)"
    assert "ValueError" in in_folder(tmp_path, "import downstream; downstream.find(memory, 24)").stderr


@pytest.mark.parametrize("header", ["dedupcore.h", "dedupcore_api.h"])
@pytest.mark.parametrize("language", [("gcc", "c11"), ("gcc", "c2x"), ("g++", "c++11"), ("g++", "c++20")])
def test_headers_compile_without_a_warning(header: str, language: tuple[str, str], tmp_path: Path) -> None:
    compiler, standard = language
    if run([compiler, "--version"]).returncode:
        pytest.skip(f"no {compiler}")
    source = tmp_path / ("user.c" if compiler == "gcc" else "user.cc")
    use = "int user(void);\nint user(void) { return dedupcore_cpu_used() ? DEDUPCORE_EINVAL : 0; }\n"
    if header == "dedupcore_api.h":
        use = "int user(void);\nint user(void) { return dedupcore_import() ? 0 : 1; }\n"
    source.write_text(f"#include <{header}>\n#include <{header}>\n{use}")
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Werror"]
    python = ["-isystem", sysconfig.get_path("include")]
    flags = [f"-std={standard}", *warnings, *module_flags("--cflags"), *python]
    succeed([compiler, *flags, "-c", "-o/dev/null", str(source)])


def test_cplusplus_links(tmp_path: Path) -> None:
    if run(["g++", "--version"]).returncode:
        pytest.skip("no g++")
    source = tmp_path / "user.cc"
    source.write_text(
        "#include <dedupcore.h>\n#include <cstdio>\n"
        'int main() { dedupcore_key key; std::puts(dedupcore_key_random(&key) ? dedupcore_strerror(-1) : "fine"); }\n'
    )
    path = str(tmp_path / "user")
    succeed(["g++", "-o", path, str(source), *sanitizer_flags(), *module_flags("--cflags"), *module_flags("--libs")])
    assert succeed([path]).strip() == "fine"


# --- what is installed -------------------------------------------------------------------------------------------


def test_the_wheel_has_all_that_others_build_with() -> None:
    files = importlib.metadata.files("pagedup")
    assert files
    names = {str(file) for file in files if not str(file).startswith(("../", "pagedup-"))}
    names = {name for name in names if "__pycache__" not in name}
    assert {
        "dedupcore/__init__.pxd",
        "dedupcore/_dedupcore.pyi",
        "dedupcore/include/dedupcore.h",
        "dedupcore/include/dedupcore_api.h",
        "dedupcore/libdedupcore.a",
        "dedupcore/py.typed",
        "pagedup/guests/presets/debian-server.toml",
        "pagedup/py.typed",
        f"dedupcore/_dedupcore{sysconfig.get_config_var('EXT_SUFFIX')}",
    } <= names
    known = (".py", ".pyi", ".pxd", ".h", ".a", ".so", ".typed", ".html", ".css", ".toml")
    assert not [name for name in names if Path(name).suffix not in known]
    assert all(Path(str(file.locate())).is_file() for file in files)


def test_what_is_tested_is_what_is_installed() -> None:
    site = Path(sysconfig.get_path("platlib")).resolve()
    assert Path(dedupcore.__file__).resolve().is_relative_to(site)
    assert Path(sys.modules["dedupcore._dedupcore"].__file__ or "").resolve().is_relative_to(site)
