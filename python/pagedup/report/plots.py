"""The pictures of a scan; imported only when they are drawn, since matplotlib is slow to import."""

from __future__ import annotations

from pagedup.report.canvas import plain_settings
from pagedup.report.picture import Picture
from pagedup.report.plot_guest_matrix import draw_guest_matrix
from pagedup.report.plot_memory_map import draw_memory_map
from pagedup.report.plot_page_sizes import draw_page_sizes
from pagedup.report.scan_result import ScanResult
from pagedup.sharing.pictures import GuestMatrix, MemoryMap


def scan_pictures(result: ScanResult, memory_map: MemoryMap, matrix: GuestMatrix) -> list[Picture]:
    """Those that have something to show."""
    pictures = []
    with plain_settings():
        if memory_map.strips:
            pictures.append(draw_memory_map(result, memory_map))
            pictures.append(draw_page_sizes(result))
        if (matrix.pages.sum(axis=1) > matrix.pages.diagonal()).any():
            pictures.append(draw_guest_matrix(result, matrix))
    return pictures
