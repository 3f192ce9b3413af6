"""Where systems load images: how many bases there are to choose from, and what is chosen together.

The numbers of bases are those of the systems' own loaders; the sources stand beside them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from pagedup.guests.spec import Role, System


@dataclass(frozen=True, slots=True)
class Loading:
    """How a system loads images.

    bases: for each role the number of bases; one number is drawn a boot for the kernel, for all drivers
    together, and for all libraries together, and one for each executable. relocates_in_process: each process draws
    bases of its own and writes relocations into its own copies; otherwise the system relocates an image once for all.
    format, machine: of the real images that it runs; "" for any machine.
    """

    bases: dict[Role, int]
    relocates_in_process: bool
    format: Literal["pe", "elf"]
    machine: str


SYSTEMS: dict[System, Loading] = {
    # Images lie where they were linked for: no ASLR before Vista (Windows Internals, 6th ed., part 2, ch. 10).
    "windows-xp": Loading({"kernel": 1, "driver": 1, "library": 1, "executable": 1}, False, "pe", "x86"),
    # Libraries: one bias a boot out of 256, 64 KiB apart; executables: 254 (a number modulo 254, plus 1), once they are
    # loaded; drivers, and the kernel with them: 64 with 32 bits, 256 with 64 (Windows Internals, 6th ed., 2, ch. 10).
    "windows-7-x86": Loading({"kernel": 64, "driver": 64, "library": 256, "executable": 254}, False, "pe", "x86"),
    "windows-7-x64": Loading({"kernel": 256, "driver": 256, "library": 256, "executable": 254}, False, "pe", "x86-64"),
    # 64-bit images above 4 GiB: 19 bits for libraries, 17 for executables (K. Johnson, M. Miller: Exploit Mitigation
    # Improvements in Windows 8, Black Hat USA 2012). Kernel and drivers: no fewer than Windows 7 has; with 256 already
    # hardly two guests agree.
    "windows-10-x64": Loading(
        {"kernel": 256, "driver": 256, "library": 1 << 19, "executable": 1 << 17}, False, "pe", "x86-64"
    ),
    # The kernel: 1 GiB in steps of 2 MiB, 9 bits (arch/x86/boot/compressed/kaslr.c; Kconfig, PHYSICAL_ALIGN); modules
    # begin up to 1024 pages higher (arch/x86/kernel/module.c). Libraries and PIE: mmap_rnd_bits, 28 (x86 Kconfig).
    "linux": Loading({"kernel": 512, "driver": 1024, "library": 1 << 28, "executable": 1 << 28}, True, "elf", ""),
}
