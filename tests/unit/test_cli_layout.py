"""`pagedup layout` as a program, and `pagedup scan` of what it saved."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pagedup.guests import preset_names
from pagedup.memory.layouts import ABSENT, Layout
from tests.layouts import make
from tests.processes import assert_fails

PAGE = 4096
NOBODY = 65534
SPEC = """
system = "windows-7-x86"
memory = "8 MiB"
guests = 2
kernel = { data = "256 KiB", content = { zero = 0.1, common = 0.2, repeated = 0.1 } }
file_cache = { size = "2 MiB", files = "8 MiB", hot = 0.5 }
free = { zero = 0.4, stale = 0.1 }
placement = { fragmentation = 0.5 }
[[images]]
name = "dlls"
role = "library"
count = 6
text = "128 KiB"
data = "32 KiB"
text_fixups = 0.9
[[processes]]
name = "office"
count = 2
libraries = 6
heap = "512 KiB"
content = { zero = 0.1, common = 0.1, repeated = 0.1 }
"""


def pagedup(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "pagedup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def answer(*arguments: str | Path) -> dict[str, Any]:
    done = pagedup(arguments[0], "--json", *arguments[1:])
    assert (done.returncode, done.stderr) == (0, "")
    data: dict[str, Any] = json.loads(done.stdout)
    return data


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    path = tmp_path / "office.toml"
    path.write_text(SPEC)
    return path


# --- what it says -------------------------------------------------------------------------------------------------


def test_json(spec: Path) -> None:
    data = answer("layout", spec)
    assert data["schema"] == "pagedup.scan/1"
    assert [(guest["name"], guest["source"], guest["kind"]) for guest in data["guests"]] == [
        ("guest-1", str(spec), "layout"),
        ("guest-2", str(spec), "layout"),
    ]
    for guest in data["guests"]:
        assert guest["bytes"] + guest["apart"]["absent"] == 8 << 20
    rows = data["page_sizes"]
    assert [row["page_size"] for row in rows] == [4096, 16384, 65536, 2 << 20, 1 << 30]
    assert rows[0]["frames"] * PAGE == sum(guest["bytes"] for guest in data["guests"])
    regions = {row["name"]: row for row in data["regions"]}
    assert {"kernel data", "image text: dlls", "image data: dlls", "heap: office", "stack: office", "file cache"} < set(
        regions
    )
    assert {"page tables: office", "free"} < set(regions) and "absent" not in regions
    assert sum(row["pages"] for row in regions.values()) == rows[0]["frames"]
    assert sum(row["zero"] for row in regions.values()) == rows[0]["zero"]
    saved = sum(row["saved_within"] + row["saved_across"] for row in regions.values())
    assert saved == rows[0]["saved_nonzero"] > 0
    assert data["ksm"]["pages"] == rows[0]["frames"]


def test_tables(spec: Path) -> None:
    done = pagedup("layout", spec, "--guests", "3")
    assert (done.returncode, done.stderr) == (0, "")
    for part in (
        "guest-3",
        "heap: office",
        "image text: dlls",
        "file cache",
        "never given memory",
        "Storing every identical 4K page once",
    ):
        assert part in done.stdout
    assert "\x1b" not in done.stdout


def test_html(spec: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = pagedup("layout", spec, "--html", page)
    assert (done.returncode, done.stderr) == (0, "") and "guest-1" in done.stdout
    text = page.read_text()
    assert text.count("<svg") >= 3  # page sizes, memory map, guests against guests
    for part in ("pagedup layout", "guest-2", "heap: office", "image text: dlls", "<figure", "blake3"):
        assert part in text
    assert text.rstrip().endswith("</html>")


def test_seed_and_guests(spec: Path) -> None:
    one, again, other = (answer("layout", spec, "--seed", seed, "--guests", "3") for seed in ("1", "1", "2"))
    assert one == again and len(one["guests"]) == 3
    assert one["most_shared"] != other["most_shared"]


def test_several_at_once(spec: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(SPEC.replace("guests = 2", 'guests = 1\nname = "b"'))
    data = answer("layout", spec, other)
    assert [guest["name"] for guest in data["guests"]] == ["guest-1", "guest-2", "b-1"]
    assert [guest["source"] for guest in data["guests"]] == [str(spec), str(spec), str(other)]


# --- what it saves ------------------------------------------------------------------------------------------------


def alike(*answers: dict[str, Any]) -> bool:
    """Whether they say the same of the pages."""
    keys = ("page_sizes", "per_guest", "most_shared", "ksm", "large_pages", "isolation")
    return all(data[key] == answers[0][key] for data in answers for key in keys)


def test_saved_layouts_and_bytes_say_the_same(spec: Path, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    data = answer("layout", spec, "--out", out, "--bytes")
    names = ["guest-1", "guest-2"]
    assert sorted(os.listdir(out)) == sorted(f"{name}.{kind}" for name in names for kind in ("npz", "lime"))
    layouts = answer("scan", *(out / f"{name}.npz" for name in names))
    dumps = answer("scan", *(out / f"{name}.lime" for name in names))
    assert alike(data, layouts, dumps)
    assert data["regions"] == layouts["regions"]
    assert [guest["kind"] for guest in layouts["guests"]] == ["layout"] * 2
    assert [guest["bytes"] for guest in layouts["guests"]] == [guest["bytes"] for guest in dumps["guests"]]
    isolated = [
        answer("scan", "--isolate-guests", *(out / f"{name}.{kind}" for name in names)) for kind in ("npz", "lime")
    ]
    assert alike(*isolated) and isolated[0]["page_sizes"] != data["page_sizes"]
    large = [
        answer("scan", "--page-size", "16K", *(out / f"{name}.{kind}" for name in names)) for kind in ("npz", "lime")
    ]
    assert alike(*large) and large[0]["page_sizes"][0]["page_size"] == 16384


def test_saved_once_more_is_the_same(spec: Path, tmp_path: Path) -> None:
    contents = []
    for _ in range(2):
        assert pagedup("layout", spec, "--out", tmp_path / "out").returncode == 0
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()})
    assert contents[0] == contents[1] and sorted(contents[0]) == ["guest-1.npz", "guest-2.npz"]
    assert Layout.load(str(tmp_path / "out" / "guest-1.npz")).n_pages == 2048


# --- what it refuses ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        ([], ["GUEST", "--help"]),
        (["windows-95"], ["there is no preset 'windows-95'", ", ".join(preset_names()), "no such file"]),
        (["./missing"], ["there is no preset './missing'"]),
        (["{spec}", "--bytes"], ["--bytes needs --out DIR"]),
        (["{spec}", "--guests", "0"], ["--guests 0: at least 1 is needed"]),
        (["{spec}", "--guests", "-1"], ["--guests -1"]),
        (["{spec}", "--guests", "x"], ["--guests"]),
        (["{spec}", "--seed", "-1"], ["--seed -1: 0 or more is needed"]),
        (["{spec}", "--seed", "0.5"], ["--seed"]),
        (["{spec}", "--page-size", "4K"], ["--page-size"]),
        (["{spec}", "--nonsense"], ["--nonsense"]),
    ],
)
def test_wrong_usage(spec: Path, tmp_path: Path, arguments: Sequence[str], parts: Sequence[str]) -> None:
    assert_fails(pagedup("layout", *(text.replace("{spec}", str(spec)) for text in arguments)), 2, *parts)
    assert os.listdir(tmp_path) == ["office.toml"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (SPEC + "nonsense = 1\n", ["unknown field `nonsense`", "`$.processes[0]`"]),
        (SPEC.replace('memory = "8 MiB"', 'memory = "4 GB"'), ["memory: '4 GB' is no size"]),
        (SPEC.replace('memory = "8 MiB"', f"memory = {1 << 70}"), ["memory: 1,180,591,620,717,411,303,424 bytes"]),
        (SPEC.replace('memory = "8 MiB"', "memory = -8192"), ["memory: -8,192 bytes"]),
        (SPEC.replace('memory = "8 MiB"', 'memory = "1 MiB"'), ["images.dlls", "of the memory's 256 are left"]),
        (SPEC.replace("stale = 0.1", "stale = 0.7"), ["add up to more than 1", "`$.free`"]),
        (SPEC.replace("zero = 0.4", "zero = nan"), ["`$.free.zero`"]),
        (SPEC.replace("guests = 2", 'name = "../../up"'), ["name is '../../up'"]),
        ("x = " + "[" * 100_000, ["brackets are nested too deeply"]),
        ("[[", ["office.toml"]),
        (None, ["office.toml: No such file or directory"]),
    ],
)
def test_bad_specifications(spec: Path, tmp_path: Path, text: str | None, parts: Sequence[str]) -> None:
    """As files of --domains are: a failure, since the command line is right. Nothing is written."""
    if text is None:
        spec.unlink()
    else:
        spec.write_text(text)
    assert_fails(pagedup("layout", spec, "--out", tmp_path / "out", "--bytes"), 1, *parts)
    assert os.listdir(tmp_path) == ([] if text is None else ["office.toml"])


def test_a_folder_that_cannot_be_written_to(spec: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert_fails(pagedup("layout", spec, "--out", tmp_path / "file"), 1, f"{tmp_path}/file: Not a directory")
    assert_fails(pagedup("layout", spec, "--out", tmp_path / "file" / "below"), 1, "Not a directory")
    (tmp_path / "out" / "guest-2.npz").mkdir(parents=True)
    assert_fails(pagedup("layout", spec, "--out", tmp_path / "out"), 1, "guest-2.npz: is not a regular file")
    assert not [path.name for path in (tmp_path / "out").iterdir() if path.name.endswith(".part")]


AS_NOBODY = f"""
import contextlib, io, os, sys
from pagedup.cli import main
with contextlib.redirect_stdout(io.StringIO()):
    assert main(["layout", sys.argv[1], "--out", sys.argv[2] + "/first"]) == 0  # imports what nobody may not read
if os.getuid() == 0:
    os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
sys.exit(main(["layout", sys.argv[1], "--out", sys.argv[2] + "/second"]))
"""


def test_no_permission() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o755)
        spec = Path(folder) / "office.toml"
        spec.write_text(SPEC)
        command = [sys.executable, "-P", "-c", AS_NOBODY, str(spec), folder]
        if os.getuid() != 0:
            pytest.skip("needs root, to be somebody else")
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert_fails(done, 1, f"{folder}/second: no permission to write in {folder}")


FULL = """
import resource, signal, sys
from pagedup.cli import main
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
sys.exit(main(sys.argv[1:]))
"""


def test_no_room_for_the_bytes(spec: Path, tmp_path: Path) -> None:
    """The layout fits, the dump does not: nothing half-written is left."""
    out = tmp_path / "out"
    command = [sys.executable, "-P", "-c", FULL, "layout", str(spec), "--out", str(out), "--bytes"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert_fails(done, 1, f"{out}/guest-1.lime: File too large")
    assert os.listdir(out) == ["guest-1.npz"]


def test_help() -> None:
    done = pagedup("layout", "--help")
    assert done.returncode == 0 and ", ".join(preset_names()) in done.stdout
    assert "layout" in pagedup("--help").stdout


# --- scanning layouts ---------------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.npz"
    make([1, 1, 0, ABSENT, 2], name="other name").save(str(path))
    return path


def test_scan_of_a_layout(saved: Path) -> None:
    data = answer("scan", saved)
    assert data["guests"] == [
        {"name": "a", "source": str(saved), "bytes": 4 * PAGE, "kind": "layout", "apart": {"absent": PAGE}}
    ]
    row = data["page_sizes"][0]
    assert (row["frames"], row["zero"], row["saved_within_guests"], row["pages_unshared"]) == (4, 1, 1, 1)
    assert [(row["name"], row["pages"]) for row in data["regions"]] == [("unknown", 3), ("heap: x", 1)]


def test_domains_of_layouts(saved: Path, tmp_path: Path) -> None:
    make([2, 1], name="b").save(str(tmp_path / "b.npz"))
    domains = tmp_path / "domains.toml"
    domains.write_text('[domains]\na = "red"\nb = "blue"\n')
    together = answer("scan", saved, tmp_path / "b.npz")["page_sizes"][0]
    apart = answer("scan", saved, tmp_path / "b.npz", "--domains", domains)["page_sizes"][0]
    assert (together["saved_across_guests"], apart["saved_across_guests"]) == (2, 0)


def test_layouts_and_bytes_are_never_mixed(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "b.img").write_bytes(bytes(PAGE))
    done = pagedup("scan", saved, tmp_path / "b.img")
    assert_fails(done, 1, "a.npz: holds names, which cannot be compared with the bytes of", "b.img")
    assert_fails(pagedup("scan", saved, f"pid:{os.getpid()}"), 1, "a.npz: holds names")


def test_layouts_that_were_named_apart(saved: Path, tmp_path: Path) -> None:
    make([1], name="b", space="elsewhere").save(str(tmp_path / "b.npz"))
    assert_fails(pagedup("scan", saved, tmp_path / "b.npz"), 1, "b and other name were named apart")


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--page-size", "2K"], "--page-size 2048: {path} is a layout, which knows only whole pages of 4096"),
        (["--page-size", "8", "4K"], "--page-size 8: {path} is a layout"),
        (["--explain", "/usr/include"], "--explain: {path} is a layout, which has no bytes"),
        (["--mergeable"], "--mergeable is for live sources"),
        (["--repeat", "2", "--interval", "1"], "--repeat is for live sources"),
    ],
)
def test_options_that_a_layout_cannot_answer(saved: Path, options: Sequence[str], part: str) -> None:
    assert_fails(pagedup("scan", saved, *options), 2, part.format(path=saved))


def test_broken_layouts(saved: Path) -> None:
    whole = saved.read_bytes()
    saved.write_bytes(whole[:-30])
    assert_fails(pagedup("scan", saved), 1, f"{saved}: is no layout, or a broken one: ")
