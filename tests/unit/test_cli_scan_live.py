"""`pagedup scan` of live processes, and what may be asked for: a page, an explanation, another look."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.processes import assert_fails

PAGE = 4096
# Holds 512 pages of known content, forks as often as asked, and then writes to the pages that it is told.
HOLDER = """
import ctypes, mmap, os, sys, time
pages, forks, parent = 512, int(sys.argv[1]), os.getpid()
memory = mmap.mmap(-1, pages * 4096, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for index in range(pages):
    memory[index * 4096:(index + 1) * 4096] = index.to_bytes(2, "little") * 2048
children = []
for _ in range(forks):
    child = os.fork()
    if child == 0:
        while os.getppid() == parent:
            time.sleep(0.02)
        os._exit(0)
    children.append(child)
print(os.getpid(), *children, flush=True)
for line in sys.stdin:
    memory[int(line) * 4096 + 1] ^= 1
    print("done", flush=True)
"""


def pagedup(*arguments: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pagedup", "scan", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, **options)


def scan(*arguments: str | Path, **options: Any) -> dict[str, Any]:
    done = pagedup("--json", *arguments, **options)
    assert (done.returncode, done.stderr) == (0, "")
    data: dict[str, Any] = json.loads(done.stdout)
    return data


class Holder:
    def __init__(self, forks: int = 0) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", HOLDER, str(forks)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        self.pids = list(map(int, self.process.stdout.readline().split()))
        self.texts = [f"pid:{pid}" for pid in self.pids]

    def write(self, page: int) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{page}\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def end(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def holder() -> Iterator[Holder]:
    holder = Holder()
    yield holder
    holder.end()


@pytest.fixture
def forked() -> Iterator[Holder]:
    holder = Holder(3)
    yield holder
    holder.end()


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "vm.img"
    path.write_bytes(b"".join(bytes([letter]) * PAGE for letter in b"aab\0cdxx"))
    return path


def tracer(pid: int) -> int:
    (line,) = (line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("TracerPid"))
    return int(line.split()[1])


def test_forked_workers_are_no_new_saving(forked: Holder) -> None:
    """Four processes hold the same 2 MiB; there is one copy of it already."""
    data = scan(*forked.texts)
    shared = [guest["apart"]["already_shared"] for guest in data["guests"]]
    assert all(size > 512 * PAGE for size in shared)
    assert data["page_sizes"][0]["saved_nonzero"] < 256
    assert data["ksm"]["as_shipped"]["pages_sharing"] < 512
    done = pagedup(*forked.texts)
    assert "shared already" in done.stdout, done.stdout


def test_two_processes_that_never_forked_are(holder: Holder) -> None:
    other = Holder()
    try:
        data = scan(holder.texts[0], other.texts[0])
        assert data["page_sizes"][0]["saved_across_guests"] >= 512
        assert any(region["name"] == "[heap]" for region in data["regions"])
        assert data["volatile"]["pages"] > 512
    finally:
        other.end()


def test_pausing_leaves_it_running(holder: Holder) -> None:
    data = scan("--pause", *holder.texts)
    assert data["page_sizes"][0]["frames"] > 512
    assert tracer(holder.pids[0]) == 0
    holder.write(1)  # it answers


def test_pausing_is_undone_by_an_error(holder: Holder) -> None:
    assert_fails(pagedup("--pause", *holder.texts, "--spool", "/nonexistent"), 1, "/nonexistent")
    assert tracer(holder.pids[0]) == 0
    holder.write(1)


def test_a_spool_leaves_nothing_behind(holder: Holder, tmp_path: Path) -> None:
    assert scan("--spool", tmp_path, *holder.texts)["page_sizes"][0]["frames"] > 512
    assert list(tmp_path.iterdir()) == []


def test_only_mergeable_memory(holder: Holder) -> None:
    data = scan("--mergeable", *holder.texts)
    assert data["page_sizes"][0]["frames"] == 0
    assert data["guests"][0]["apart"]["not_mergeable"] > 512 * PAGE


def test_looking_again_and_again(holder: Holder) -> None:
    begin = time.monotonic()
    data = scan("--repeat", "3", "--interval", "0.4", *holder.texts)
    assert time.monotonic() - begin >= 1.2
    lifetime = data["lifetime"]
    assert len(lifetime["unchanged"]) == 4
    seconds = [look["seconds"] for look in lifetime["unchanged"]]
    assert seconds[0] == 0 and all(after - before >= 0.4 for before, after in pairwise(seconds))
    assert data["volatile"]["pages"] == lifetime["unchanged"][0]["pages"]
    done = pagedup("--repeat", "2", "--interval", "0.1", *holder.texts)
    assert done.returncode == 0 and "as before" in done.stdout


@pytest.mark.parametrize(
    ("options", "part"),
    [
        (["--repeat", "0"], "--repeat 0"),
        (["--repeat", "2"], "--repeat needs --interval"),
        (["--interval", "-1"], "--interval -1"),
        (["--interval", "nan"], "--interval nan"),
        (["--interval", "x"], "--interval"),
        (["--pause"], "--pause is for live sources"),
        (["--mergeable"], "--mergeable is for live sources"),
        (["--spool", "/tmp"], "--spool is for live sources"),
        (["--interval", "1"], "--interval is for live sources"),
        (["--repeat", "2", "--interval", "1"], "--repeat is for live sources"),
    ],
)
def test_options_that_make_no_sense(image: Path, options: list[str], part: str) -> None:
    assert_fails(pagedup(*options, image), 2, part)


def test_a_page_beside_the_tables(image: Path, tmp_path: Path) -> None:
    page = tmp_path / "report.html"
    done = pagedup("--html", page, image)
    assert (done.returncode, done.stderr) == (0, "")
    assert "By guest" in done.stdout
    text = page.read_text()
    assert text.startswith("<!doctype html>") and str(image) in text
    from blake3 import blake3

    assert blake3(image.read_bytes()).hexdigest() in text
    assert [path.name for path in tmp_path.iterdir() if path != image] == ["report.html"]


def test_a_page_of_live_memory(holder: Holder, tmp_path: Path) -> None:
    data = scan("--html", tmp_path / "report.html", *holder.texts)
    assert data["page_sizes"] and (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["nowhere/report.html", "."])
def test_a_page_that_cannot_be_written_is_told_before_the_scan(image: Path, tmp_path: Path, name: str) -> None:
    assert_fails(pagedup("--html", tmp_path / name, image), 1, str(tmp_path))


@pytest.mark.parametrize("module", ["matplotlib", "jinja2"])
def test_a_page_without_the_extra(image: Path, tmp_path: Path, module: str) -> None:
    code = f"import sys; sys.modules['{module}'] = None; from pagedup.cli import main; sys.exit(main(sys.argv[1:]))"
    command = [sys.executable, "-c", code, "scan", "--html", str(tmp_path / "report.html"), str(image)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert_fails(done, 1, "pip install 'pagedup[report]'")
    command.remove("--html")
    command.remove(str(tmp_path / "report.html"))
    assert subprocess.run(command, capture_output=True).returncode == 0, "nothing else needs it"


def test_what_the_pages_are_of(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "bin").mkdir(parents=True)
    (tree / "bin" / "tool").write_bytes(b"".join(bytes([letter]) * PAGE for letter in b"xyz"))
    (tree / "unrelated").write_bytes(b"q" * PAGE)
    image = tmp_path / "vm.img"
    image.write_bytes(b"".join(bytes([letter]) * PAGE for letter in b"xxyyabcb"))
    data = scan("--explain", tree, image)
    assert [file["path"] for file in data["explanation"]["by_file"]] == ["bin/tool"]
    assert data["explanation"]["explained_bytes"] == 2 * PAGE and data["explanation"]["saved_bytes"] == 3 * PAGE
    assert "bin/tool" in pagedup("--explain", tree, image).stdout
    assert_fails(pagedup("--explain", tmp_path / "none", image), 1, str(tmp_path / "none"))


def test_a_guest_that_is_not_there(image: Path) -> None:
    assert_fails(pagedup("qemu:no such guest"), 1, "qemu:no such guest: there is no such guest")
    assert_fails(pagedup("qemu:"), 2, "takes a guest's name")
    assert_fails(pagedup(f"qemu:{image}"), 1, f"{image}: is no QMP socket")
