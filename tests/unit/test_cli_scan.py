"""`pagedup scan` as a program: its exit codes, its one line of error, its JSON and its tables."""

import json
import os
import pty
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import pagedup as library
import pagedup.cli.examine as examine_module
import pagedup.cli.scan as scan_module
from pagedup.cli import main
from tests.processes import assert_fails, run_python

PAGE = 4096
NOBODY = 65534


def pagedup(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagedup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def scan(*arguments: str | Path, **options: Any) -> dict[str, Any]:
    done = pagedup("scan", "--json", *arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    data: dict[str, Any] = json.loads(done.stdout)
    return data


def page(letter: str) -> bytes:
    return letter.encode() * PAGE


def image(path: Path, pages: str) -> Path:
    """A file of 4K pages, one a letter; a dot is a zero page."""
    path.write_bytes(b"".join(bytes(PAGE) if letter == "." else page(letter) for letter in pages))
    return path


@pytest.fixture
def guests(tmp_path: Path) -> list[Path]:
    return [image(tmp_path / "vm1.img", "aab.cdxx"), image(tmp_path / "vm2.img", "abe..fxx")]


def test_json(guests: list[Path]) -> None:
    data = scan(*guests, "--page-size", "4K")
    assert data["schema"] == "pagedup.scan/1"
    assert [(guest["name"], guest["source"], guest["bytes"]) for guest in data["guests"]] == [
        ("vm1", str(guests[0]), 8 * PAGE),
        ("vm2", str(guests[1]), 8 * PAGE),
    ]
    # contents a(3) b(2) c d e f x(4)
    assert data["page_sizes"] == [
        {
            "page_size": 4096,
            "frames": 16,
            "zero": 3,
            "nonzero": 13,
            "distinct": 7,
            "saved_zero": 3,
            "saved_nonzero": 6,
            "saved_within_guests": 3,
            "saved_across_guests": 3,
            "pages_shared": 3,
            "pages_sharing": 6,
            "pages_unshared": 4,
            "excluded_bytes": 0,
        }
    ]
    first, second = data["per_guest"]
    assert (first["zero"], first["nonzero"], first["distinct"], first["saved_within"]) == (1, 7, 5, 2)
    assert (first["shared_across"], second["shared_across"]) == (5, 4)
    top = data["most_shared"][0]
    assert (top["guest"], top["address"], top["copies"], top["guests"]) == ("vm1", 6 * PAGE, 4, 2)


def test_default_page_sizes(guests: list[Path]) -> None:
    rows = scan(*guests)["page_sizes"]
    assert [row["page_size"] for row in rows] == [4096, 16384, 65536, 2 << 20, 1 << 30]
    assert [row["frames"] for row in rows] == [16, 4, 0, 0, 0]
    assert [row["excluded_bytes"] for row in rows] == [0, 0, 16 * PAGE, 16 * PAGE, 16 * PAGE]
    assert rows[1]["saved_nonzero"] == 0


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (["--page-size", "16K", "4K"], []),
        ([], ["--page-size", "16K", "4K"]),
        (["--page-size=4K", "16384"], []),
        (["--page-size", "4k"], ["--page-size", "16k", "--page-size", "4096"]),
    ],
)
def test_page_sizes_anywhere_ascending_and_once(guests: list[Path], before: list[str], after: list[str]) -> None:
    rows = scan(*before, *guests, *after)["page_sizes"]
    assert [row["page_size"] for row in rows] == [4096, 16384]


def test_options_between_sources(guests: list[Path]) -> None:
    assert len(scan(guests[0], "--threads", "1", guests[1], "--page-size", "4K")["guests"]) == 2


@pytest.mark.parametrize("name", ["101.raw", "4", "4Kx", "2024-01.img"])
def test_sources_that_begin_with_a_number(tmp_path: Path, name: str) -> None:
    image(tmp_path / name, "ab")
    text = f"./{name}" if name == "4" else name  # a bare number is a size
    data = scan("--page-size", "4K", text, cwd=tmp_path)
    assert [guest["source"] for guest in data["guests"]] == [text]


@pytest.mark.parametrize("size", ["8", "512", "2K"])
def test_page_sizes_below_4k(tmp_path: Path, size: str) -> None:
    path = image(tmp_path / "a.img", "aab.")
    rows = scan(path, "--page-size", size, "4K")["page_sizes"]
    small = rows[0]
    assert small["frames"] * small["page_size"] == 4 * PAGE
    assert small["distinct"] == 2
    assert (rows[1]["frames"], rows[1]["distinct"], rows[1]["zero"]) == (4, 2, 1)


def test_larger_page_size_alone(tmp_path: Path) -> None:
    path = image(tmp_path / "a.img", "abcd" * 3 + "abce" + "...." + "ab")
    (row,) = scan(path, "--page-size", "16K")["page_sizes"]
    assert (row["frames"], row["zero"], row["distinct"], row["saved_nonzero"]) == (5, 1, 2, 2)
    assert row["excluded_bytes"] == 2 * PAGE


def test_isolate_guests(guests: list[Path]) -> None:
    data = scan(*guests, "--isolate-guests", "--page-size", "4K")
    (row,) = data["page_sizes"]
    assert (row["saved_within_guests"], row["saved_across_guests"], row["distinct"]) == (3, 0, 10)
    assert [guest["domain"] for guest in data["guests"]] == ["vm1", "vm2"]
    assert [guest["shared_across"] for guest in data["per_guest"]] == [0, 0]


def test_domains(guests: list[Path], tmp_path: Path) -> None:
    guests.append(image(tmp_path / "vm3.img", "aq"))
    domains = tmp_path / "domains.toml"
    domains.write_text('[domains]\nvm1 = "red"\nvm2 = "blue"\nvm3 = "red"\n')
    data = scan(*guests, "--domains", domains, "--page-size", "4K")
    (row,) = data["page_sizes"]
    assert (row["saved_within_guests"], row["saved_across_guests"]) == (3, 1)
    assert [guest["domain"] for guest in data["guests"]] == ["red", "blue", "red"]
    assert [guest["shared_across"] for guest in data["per_guest"]] == [2, 0, 1]


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ('[domains]\nvm1 = "red"\n', ["lacks a line", '"vm2"']),
        ('[domains]\nvm1 = "r"\nvm2 = "r"\nvm9 = "r"\n', ["'vm9'", "'vm1', 'vm2'"]),
        ('[domains]\nvm1 = "red"\nvm2 = \n', ["line 3"]),
        ('[domains]\nvm1 = 1\nvm2 = "r"\n', ["str", "domains"]),
        ('vm1 = "red"\n', ["vm1"]),
        ("", ["domains"]),
        (b"\xff", ["utf-8"]),
        ("domains = " + "[" * 5000, [""]),
        (None, ["No such file"]),
    ],
)
def test_bad_domains(guests: list[Path], tmp_path: Path, text: str | bytes | None, parts: list[str]) -> None:
    path = tmp_path / "domains.toml"
    if text is not None:
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert_fails(pagedup("scan", *guests, "--domains", path), 1, str(path), *parts)


def test_domains_are_judged_before_anything_is_read(
    guests: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(scan_module, "open_sources", lambda *arguments, **options: pytest.fail("opened"))
    assert main(["scan", *map(str, guests), "--domains", "/missing.toml"]) == 1
    assert capsys.readouterr() == ("", "pagedup: /missing.toml: No such file or directory\n")


@pytest.mark.parametrize("threads", ["1", "2", "7", "99999999999999999999"])
def test_threads_do_not_change_the_answer(guests: list[Path], threads: str) -> None:
    data, other = scan(*guests), scan(*guests, "--threads", threads)
    data.pop("work")
    other.pop("work")
    assert data == other


@pytest.mark.parametrize(
    "arguments",
    [
        ["--page-size", "3K"],
        ["--page-size", "-1"],
        ["--page-size=-1"],
        ["--page-size", "0"],
        ["--page-size", "4"],
        ["--page-size", "2G"],
        ["--page-size", "4KiB"],
        ["--page-size", "4.0K"],
        ["--page-size", "junk"],
        ["--page-size", ""],
        ["--page-size", "4K", "3K"],
        ["--page-size", "4K", "-4K"],
        ["--page-size", "4K", "4KiB"],
        ["--page-size", "4K", "1.5M"],
        ["--page-size", "4K", "1T"],
        ["--page-size", "99999999999999999999"],
        ["--page-size"],
        ["--threads", "0"],
        ["--threads", "-2"],
        ["--threads", "x"],
        ["--isolate-guests", "--domains", "x.toml"],
        ["--no-such-option"],
        ["--jso"],
        ["pid:x"],
        ["xen:x"],
    ],
)
def test_wrong_usage(guests: list[Path], arguments: list[str]) -> None:
    assert_fails(pagedup("scan", guests[0], *arguments), 2)


@pytest.mark.parametrize("arguments", [[], ["scan"], ["scan", "--json"], ["sacn"], ["--no-such-option"], ["scan", ""]])
def test_nothing_to_do(arguments: list[str]) -> None:
    assert_fails(pagedup(*arguments), 2)


def test_same_source_twice(guests: list[Path]) -> None:
    assert_fails(pagedup("scan", guests[0], guests[0]), 2, "given twice")
    assert_fails(pagedup("scan", f"pid:{os.getpid()}", f"pid:{os.getpid()}"), 2, "given twice")


def test_unreadable_input(tmp_path: Path) -> None:
    empty, odd, pipe = tmp_path / "empty", tmp_path / "odd", tmp_path / "pipe"
    empty.touch()
    odd.write_bytes(bytes(PAGE + 100))
    os.mkfifo(pipe)
    assert_fails(pagedup("scan", tmp_path / "missing.img"), 1, "missing.img: No such file")
    assert_fails(pagedup("scan", tmp_path), 1, str(tmp_path), "directory")
    assert_fails(pagedup("scan", empty), 1, str(empty), "empty")
    assert_fails(pagedup("scan", odd), 1, str(odd), "4,096", "100 bytes")
    assert_fails(pagedup("scan", pipe), 1, str(pipe), "pipe")
    assert_fails(pagedup("scan", f"{tmp_path}/two\nlines"), 1, "two\\nlines")
    assert_fails(pagedup("scan", tmp_path / os.fsdecode(b"\xff")), 1)


def test_process_that_is_gone() -> None:
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert_fails(pagedup("scan", f"pid:{process.pid}"), 1, f"pid:{process.pid}", "no such process")


def as_nobody(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `pagedup` without root's rights.

    What it imports is imported first, by a scan that fails, since nobody may not be allowed to read it.
    """
    program = (
        "import contextlib, io, os, sys; from pagedup.cli import main\n"
        "with contextlib.redirect_stderr(io.StringIO()): assert main(['scan', '/missing']) == 1\n"
        f"if os.getuid() == 0: os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_no_permission_for_a_file() -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own folders are closed to others
        os.chmod(folder, 0o755)
        path = image(Path(folder) / "secret.img", "a")
        assert_fails(as_nobody("scan", path / "below"), 1, "Not a directory")  # so nobody gets as far as the file
        path.chmod(0)
        assert_fails(as_nobody("scan", path), 1, f"{path}: Permission denied")


def test_no_permission_for_a_process() -> None:
    if os.getuid() != 0 and os.stat("/proc/1").st_uid == os.getuid():
        pytest.skip("every process here is ours")
    pid = os.getpid() if os.getuid() == 0 else 1
    assert_fails(as_nobody("scan", f"pid:{pid}"), 1, f"pid:{pid}", "no permission", "CAP_SYS_PTRACE")


HOLDER = """
import mmap, sys
kept = mmap.mmap(-1, 64 * 4096)
kept.madvise(mmap.MADV_NOHUGEPAGE)
private = mmap.mmap(-1, 64 * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
for index in range(64):
    private[index * 4096:(index + 1) * 4096] = bytes([1 + index % 16]) * 4096
print("ready", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holders() -> Iterator[list[str]]:
    processes = [
        subprocess.Popen([sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in "12"
    ]
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == b"ready\n"
    yield [f"pid:{process.pid}" for process in processes]
    for process in processes:
        process.kill()
        process.communicate()


def test_live_processes(holders: list[str]) -> None:
    data = scan(*holders, "--page-size", "4K")
    assert [guest["name"] for guest in data["guests"]] == holders
    assert all(guest["kind"] == "process" and guest["detail"].startswith("python") for guest in data["guests"])
    (row,) = data["page_sizes"]
    assert row["frames"] * 4096 == sum(guest["bytes"] for guest in data["guests"])
    assert row["saved_within_guests"] >= 2 * 48
    assert row["saved_across_guests"] >= 16
    assert all(guest["saved_within"] >= 48 for guest in data["per_guest"])


def test_tables(guests: list[Path]) -> None:
    done = pagedup("scan", *guests)
    assert (done.returncode, done.stderr) == (0, "")
    for text in ("16K", "vm1", "vm2", "0x6000", "Storing every identical 4K page once would save 36.0 KiB of 64.0 KiB"):
        assert text in done.stdout
    assert "\x1b" not in done.stdout and "…" not in done.stdout


def test_tables_where_the_encoding_is_poor(tmp_path: Path) -> None:
    path = image(tmp_path / "größe.img", "aa")
    done = pagedup("scan", path, env={**os.environ, "PYTHONIOENCODING": "ascii"})
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.isascii() and "gr\\xf6\\xdfe" in done.stdout


def test_progress_only_on_a_terminal(guests: list[Path]) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "pagedup", "scan", "--json", *guests],
        stdout=subprocess.PIPE,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm"},
    ) as process:
        os.close(theirs)
        assert process.stdout is not None
        data = json.loads(process.stdout.read())
        shown = b""
        try:
            while part := os.read(ours, 65536):
                shown += part
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    assert process.returncode == 0
    assert data["schema"] == "pagedup.scan/1"
    assert b"opening" in shown and b"page sizes" in shown


def test_json_needs_neither_rich_nor_msgspec(guests: list[Path]) -> None:
    program = "import sys; from pagedup.cli import main; main(sys.argv[1:]); print(*sys.modules, file=sys.stderr)"
    command = [sys.executable, "-c", program, "scan", "--json", str(guests[0])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert not {"rich", "msgspec", "blake3"} & set(done.stderr.split())


def test_version_and_help() -> None:
    done = pagedup("--version")
    assert done.returncode == 0 and done.stdout.startswith("pagedup 0.")
    assert "scan" in pagedup("--help").stdout
    done = pagedup("scan", "--help")
    assert done.returncode == 0 and "--isolate-guests" in done.stdout and "pid:N" in done.stdout


def test_file_that_shrinks_while_read(
    guests: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def find_duplicates(*arguments: Any, **options: Any) -> Any:
        os.truncate(guests[1], 3 * PAGE)
        return library.find_duplicates(*arguments, **options)

    monkeypatch.setattr(examine_module, "find_duplicates", find_duplicates)
    assert main(["scan", *map(str, guests)]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err == f"pagedup: {guests[1]}: the file shrank from 32,768 to 12,288 bytes while it was read\n"


def test_interrupted(guests: list[Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def find_duplicates(*arguments: Any, **options: Any) -> Any:
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(examine_module, "find_duplicates", find_duplicates)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background is begun without it
    try:
        assert main(["scan", *map(str, guests)]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert capsys.readouterr() == ("", "pagedup: interrupted\n")


def test_image_that_keeps_changing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """A writer that spoils, in every round, the page that the others are compared with."""
    image = tmp_path / "image"
    image.write_bytes(b"\1" * 4096 * 100)
    rounds = 0

    def spoil(phase: str, done: int, total: int) -> None:
        nonlocal rounds
        if phase == "compare" and done == 0:
            with image.open("r+b") as file:
                file.seek(rounds * 4096 + 2048)
                file.write(b"\2")
            rounds += 1

    with_spoiling = partial(library.find_duplicates, progress=spoil)
    monkeypatch.setattr(examine_module, "find_duplicates", lambda *a, progress, **k: with_spoiling(*a, **k))
    assert main(["scan", "--threads", "1", str(image)]) == 1
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("pagedup: the memory changes while it is read") and err.count("\n") == 1


def in_shell(redirection: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-c", f'exec "$@" {redirection}', "sh", sys.executable, "-m", "pagedup", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_stderr_closed(guests: list[Path]) -> None:
    done = in_shell("2>&-", "scan", "--json", *guests)
    assert (done.returncode, json.loads(done.stdout)["schema"]) == (0, "pagedup.scan/1")
    done = in_shell("2>&-", "scan", "--json", "/missing")
    assert (done.returncode, done.stdout) == (1, "")
    assert in_shell("2>&-", "scan").returncode == 2


@pytest.mark.parametrize("command", [["scan"], ["scan", "--json"], ["--version"], ["--help"], ["scan", "--help"]])
def test_stdout_closed(guests: list[Path], command: list[str]) -> None:
    assert_fails(in_shell(">&-", *command, *(guests if command[0] == "scan" else [])), 1, "stdout is closed")
    assert in_shell(">&- 2>&-", *command).returncode == 1


def test_closed_pipe(guests: list[Path]) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "pagedup", "scan", "--json", *guests],
        stdout=writing,
        stderr=subprocess.PIPE,
        timeout=120,
        check=False,
    )
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


def test_full_disk(guests: list[Path]) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "pagedup", "scan", *guests],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, b"pagedup: No space left on device\n")


def test_holes_stay_holes(tmp_path: Path) -> None:
    """On a memory file system, reading a hole through a mapping would fill it."""
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK):
        pytest.skip("there is no memory file system to write to")
    path = folder / f"pagedup-test-{os.getpid()}.img"
    try:
        with path.open("wb") as file:
            file.truncate(64 << 20)
            file.write(page("a") * 2)
        before = path.stat().st_blocks
        (row,) = scan(path, "--page-size", "4K")["page_sizes"]
        assert (row["frames"], row["zero"], row["distinct"]) == (16384, 16382, 1)
        assert path.stat().st_blocks == before
    finally:
        path.unlink()


# The interrupt comes as this module is to be imported, wherever that is asked for.
INTERRUPTED = """
import runpy, signal, sys

class Interrupting:
    def find_spec(self, name, path=None, target=None):
        if name == sys.argv[1]:
            signal.raise_signal(signal.SIGINT)

sys.meta_path.insert(0, Interrupting())
how, sys.argv[1:] = sys.argv[2], [sys.argv[1], "scan", "pid:1"]
if how == "module":
    runpy.run_module("pagedup", run_name="__main__", alter_sys=True)
else:
    from pagedup.cli import main
    sys.exit(main(["scan", "pid:1"]))
"""


@pytest.mark.parametrize("how", ["module", "script"])
@pytest.mark.parametrize("module", ["numpy", "dedupcore", "dataclasses", "pagedup.cli.entry", "pagedup.cli.examine"])
def test_an_interrupt_while_modules_are_imported(module: str, how: str) -> None:
    done = run_python(INTERRUPTED, module, how)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "pagedup: interrupted\n")
