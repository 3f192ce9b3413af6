"""Swap files that go bad."""

from pagedup.swap import SwapFile


def flip(swap: SwapFile, slot: int, byte: int) -> None:
    """Change a bit of a slot, past the swap file."""
    with open(f"/proc/self/fd/{swap.fileno()}", "r+b") as file:
        file.seek(slot * swap.frame_size + byte)
        old = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([old[0] ^ 0x10]))
