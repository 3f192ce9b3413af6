"""Which form a file has is told by its content, and what is no plain memory is refused with what to do instead."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.dumps import Load, elf_core, lime, open_file, open_path, pages

PAGE = 4096


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (elf_core([Load(120, PAGE)]) + pages(1), "elf"),
        (lime([(0, pages(1))]), "lime"),
        (pages(1), "raw"),
        (bytes(PAGE), "raw"),
        (b"\x7fEL" + bytes(PAGE - 3), "raw"),
        (b"MZ" + bytes(PAGE - 2), "raw"),
        (b"BZh9 is not how bzip2 goes on" + bytes(PAGE - 29), "raw"),
    ],
)
def test_the_name_does_not_matter(tmp_path: Path, content: bytes, kind: str) -> None:
    for name in ("guest", "guest.raw", "guest.elf", "guest.gz"):
        path = tmp_path / name
        path.write_bytes(content)
        with open_path(path) as source:
            assert source.kind == kind


@pytest.mark.parametrize(
    ("magic", "what", "instead"),
    [
        (b"KDUMP   \x06\0\0\0", "a compressed kdump", "makedumpfile -E"),
        (b"makedumpfile\0\0\0\0\1", "a kdump in the flattened form", "makedumpfile -R"),
        (b"PAGEDUMP\x0f\0\0\0", "a 32-bit Windows crash dump", "dump-guest-memory"),
        (b"PAGEDU64\x0f\0\0\0", "a 64-bit Windows crash dump", "dump-guest-memory"),
        (b"QFI\xfb\0\0\0\3", "a qcow image", "dump-guest-memory"),
        (b"\xd0\xbe\xd0\xbe", "a VMware state file", ".vmem"),
        (b"\xd2\xbe\xd2\xbe", "a VMware state file", ".vmem"),
        (b"\xd3\xbe\xd3\xbe", "a VMware state file", ".vmem"),
        (b"\xd1\xba\xd1\xba", "a VMware state file", ".vmem"),
        (b"\xd2\xba\xd2\xba", "a VMware state file", ".vmem"),
        (b"QEVM\0\0\0\3", "a QEMU migration stream", "virsh dump --memory-only"),
        (b"LibvirtQemudSave\2\0\0\0", "a libvirt save image", "virsh dump --memory-only"),
        (b"LibvirtQemudPart\2\0\0\0", "an unfinished libvirt save image", "virsh dump --memory-only"),
        (b"AVML\2\0\0\0", "a compressed AVML dump", "avml-convert"),
    ],
)
def test_other_forms_are_named(tmp_path: Path, magic: bytes, what: str, instead: str) -> None:
    for size in (len(magic), PAGE):
        with pytest.raises(OSError, match=f"is {what}.*{instead}") as caught:
            open_file(tmp_path, magic + bytes(size - len(magic)))
        assert str(caught.value).startswith(str(tmp_path))
        assert "\n" not in str(caught.value)
    with open_file(tmp_path, bytes(8) + magic + bytes(PAGE - 8 - len(magic))) as source:
        assert source.kind == "raw"


@pytest.mark.parametrize("tool", ["gzip", "bzip2", "xz", "zstd", "lz4"])
def test_compressed_files(tmp_path: Path, tool: str) -> None:
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed")
    data = subprocess.run([tool, "-c", "-"], input=pages(1, 0, 2), stdout=subprocess.PIPE, check=True).stdout
    with pytest.raises(OSError, match=f"is compressed with {tool}, .*decompress it first: `{tool} -d`"):
        open_file(tmp_path, data)


def test_a_refused_file_is_closed(tmp_path: Path) -> None:
    descriptors = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match="migration stream"):
        open_file(tmp_path, b"QEVM")
    assert len(os.listdir("/proc/self/fd")) == descriptors
