"""Directories and zips of binaries and plain files."""

import io
import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from pagedup.guests.images import ImageError, Row, Section, load, load_tree, relocation_table
from tests.elf_files import shared_object
from tests.pe_files import CODE, DATA, HIGHLOW, PAGE, Part, blocks, pe_file

PARTS = [Part(".text", PAGE, b"x" * 5000, flags=CODE), Part(".data", 3 * PAGE, b"d", flags=DATA)]
PE = pe_file(PARTS, blocks([(PAGE, HIGHLOW)]))
ELF = shared_object(bytes(64), rela=[(PAGE, 8, 1)]).content
FILES = {"b/lib.dll": PE, "a.so": ELF, "b/a.txt": b"t" * 5000, "c": b"x", "empty": b"", "b/bad.dll": PE[:600]}
EXPECTED = [("a.so", "elf"), ("b/a.txt", "file"), ("b/bad.dll", "file"), ("b/lib.dll", "pe"), ("c", "file")]


def write(root: Path) -> None:
    for name, content in FILES.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)


def check(folder: str) -> None:
    images = load_tree(folder)
    assert [(image.name, image.kind) for image in images] == [(f"{folder}/{name}", kind) for name, kind in EXPECTED]
    flaws = [image.flaw for image in images]
    assert flaws[2].startswith(f"{folder}/b/bad.dll: PointerToRawData of section 0 at offset")
    assert not any(flaws[:2] + flaws[3:])
    for image in images:
        if image.kind == "file":
            content = FILES[os.path.relpath(image.name, folder)]
            assert image.pages().tobytes() == content.ljust(image.n_pages * PAGE, b"\0")
            assert image.sections == (Section("file", "rdata", 0, image.n_pages),)
    (tmp := Path(folder).parent / "single.dll").write_bytes(PE)
    assert (images[3].pages(0x20000000) == load(tmp).pages(0x20000000)).all()


def test_a_directory(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    write(root)
    (root / "b" / "link").symlink_to(root / "a.so")
    (root / "link").symlink_to(root / "b")
    os.link(root / "b" / "lib.dll", root / "z")
    os.mkfifo(root / "pipe")
    check(str(root))


@pytest.mark.parametrize("how", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_a_zip(tmp_path: Path, how: int) -> None:
    path = tmp_path / "some.whl"
    with zipfile.ZipFile(path, "w", how) as archive:
        for name in sorted(FILES, reverse=True):
            archive.writestr(name, FILES[name])
        link = zipfile.ZipInfo("link")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "a.so")
        archive.mkdir("folder")
    check(str(path))


def test_names_twice_in_a_zip(tmp_path: Path) -> None:
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a", b"1")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a", b"2")
    (image,) = load_tree(path)
    assert image.pages()[0, 0] == ord("2"), "the last one counts, as in unpacking"


def test_what_is_neither(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"no zip")
    with pytest.raises(ImageError, match=r"file: is neither a directory nor a sound zip: File is not a zip file"):
        load_tree(path)
    with pytest.raises(FileNotFoundError):
        load_tree(tmp_path / "none")
    with pytest.raises(IsADirectoryError, match=r"load_tree\(\) takes it"):
        load(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is not a regular file"):
        load(tmp_path / "pipe")
    assert load_tree(tmp_path)[0].name == str(path)


def test_a_broken_zip(tmp_path: Path) -> None:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", os.urandom(10_000))
    content = target.getvalue()
    path = tmp_path / "broken.zip"
    rng = np.random.default_rng(1)
    for _ in range(300):
        broken = bytearray(content)
        broken[rng.integers(len(content) - 120, len(content))] ^= 1 << rng.integers(8)
        broken[rng.integers(len(content))] ^= 1 << rng.integers(8)
        path.write_bytes(broken)
        try:
            load_tree(path)
        except ImageError as error:
            assert "\n" not in str(error)


def test_many_files_are_not_open_at_once(tmp_path: Path) -> None:
    for number in range(3000):
        (tmp_path / f"{number}").write_bytes(b"x" * (number + 1))
    before, maps = len(os.listdir("/proc/self/fd")), len(Path("/proc/self/maps").read_text().splitlines())
    images = load_tree(tmp_path)
    assert len(images) == 3000
    assert len(os.listdir("/proc/self/fd")) == before
    assert len(Path("/proc/self/maps").read_text().splitlines()) < maps + 100
    assert [image.name for image in images] == sorted(image.name for image in images)


def test_relocation_table(tmp_path: Path) -> None:
    write(tmp_path)
    assert relocation_table(load_tree(tmp_path)) == [
        Row("elf", "x86-64", ".text", 0, 0, 0),
        Row("elf", "x86-64", ".rdata", 0, 0, 0),
        Row("elf", "x86-64", ".data", 2, 1, 0),
        Row("elf", "x86-64", "all", 2, 1, 0),
        Row("pe", "x86", ".text", 2, 1, 0),
        Row("pe", "x86", ".rdata", 0, 0, 0),
        Row("pe", "x86", ".data", 1, 0, 0),
        Row("pe", "x86", "all", 5, 2, 0),
    ]
    assert relocation_table([]) == []


def test_without_lief(tmp_path: Path) -> None:
    """ELF and plain files need no extra; PE says what it needs, in one line."""
    write(tmp_path)
    code = f"""
import sys
sys.modules["lief"] = None
from pagedup.guests.images import load
print(load({str(tmp_path / "a.so")!r}).kind, load({str(tmp_path / "c")!r}).kind)
try:
    load({str(tmp_path / "b/lib.dll")!r})
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    kinds, message = done.stdout.splitlines()
    assert kinds == "elf file"
    assert message.startswith(f"{tmp_path}/b/lib.dll: reading PE takes lief, which is not installed: ")
    assert "pip install 'pagedup[images]'" in message
