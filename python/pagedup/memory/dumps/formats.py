"""Which form a memory image has, told by its first bytes."""

from __future__ import annotations

from pagedup.memory.dumps.elf import ELF_MAGIC, ElfSource
from pagedup.memory.dumps.image_file import ImageFile
from pagedup.memory.dumps.lime import LIME_MAGIC, LimeSource
from pagedup.memory.dumps.mapped_source import MappedSource
from pagedup.memory.dumps.raw import RawSource

_READ: dict[bytes, type[ElfSource] | type[LimeSource]] = {
    ELF_MAGIC: ElfSource,
    LIME_MAGIC.to_bytes(4, "little"): LimeSource,
}

_AS_ELF = "dump the guest's memory as ELF instead: `virsh dump --memory-only`, or QEMU's dump-guest-memory"
_KDUMP = "save /proc/vmcore with `makedumpfile -E` (ELF), or dump the guest without -z, -l and -s"
_FLATTENED = f"if it was written with -E, `makedumpfile -R NEW < FILE` makes an ELF core of it; else {_KDUMP}"
_DISK = f"it holds a disk, perhaps with snapshots, not memory as such; {_AS_ELF}"
_VMWARE = "give the .vmem file beside it, or convert both with vmss2core"

# Beginning of the file, what it is, what to do instead. From the headers of makedumpfile and QEMU (dump.h, savevm.h,
# qcow2.h), libvirt (qemu_saveimage.h), crash (vmware_vmss.h), AVML (image.rs), Volatility 3 (crash.py), and the
# specifications of the compressed forms (RFC 1952, RFC 8878, the .xz and LZ4 frame formats, bzip2's decompress.c).
_REFUSED: tuple[tuple[bytes, str, str], ...] = (
    (b"KDUMP   ", "a compressed kdump", _KDUMP),
    (b"makedumpfile", "a kdump in the flattened form", _FLATTENED),
    (b"PAGEDUMP", "a 32-bit Windows crash dump", _AS_ELF),
    (b"PAGEDU64", "a 64-bit Windows crash dump", _AS_ELF),
    (b"QFI\xfb", "a qcow image", _DISK),
    *(
        (magic.to_bytes(4, "little"), "a VMware state file (vmss or vmsn)", _VMWARE)
        for magic in (0xBED0BED0, 0xBED2BED2, 0xBED3BED3, 0xBAD1BAD1, 0xBAD2BAD2)
    ),
    (b"QEVM", "a QEMU migration stream", _AS_ELF),
    (b"LibvirtQemudSave", "a libvirt save image", _AS_ELF),
    (b"LibvirtQemudPart", "an unfinished libvirt save image", _AS_ELF),
    (b"AVML", "a compressed AVML dump (LiME version 2)", "convert it to LiME with avml-convert"),
    (b"\x1f\x8b\x08", "compressed with gzip", "decompress it first: `gzip -d`"),
    (b"\xfd7zXZ\x00", "compressed with xz", "decompress it first: `xz -d`"),
    (b"\x28\xb5\x2f\xfd", "compressed with zstd", "decompress it first: `zstd -d`"),
    (b"\x04\x22\x4d\x18", "compressed with lz4", "decompress it first: `lz4 -d`"),
    *((b"BZh%d1AY&SY" % level, "compressed with bzip2", "decompress it first: `bzip2 -d`") for level in range(1, 10)),
)


def open_image(name: str, path: str, frame_size: int) -> MappedSource:
    """Open the memory image at `path`, an ELF core, a LiME dump or else a raw image, whatever its name says.

    Raises OSError for what cannot be read, and for a file of a known form that is no plain memory.
    """
    file = ImageFile(path)
    try:
        head = bytes(file.content[:16])
        for magic, what, instead in _REFUSED:
            if head.startswith(magic):
                raise OSError(f"{path}: is {what}, which pagedup does not read; {instead}")
        source = next((source for magic, source in _READ.items() if head.startswith(magic)), RawSource)
        return source(name, file, frame_size)
    except BaseException:
        file.close()
        raise
