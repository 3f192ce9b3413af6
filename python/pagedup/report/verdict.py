"""The answer in one sentence."""

from __future__ import annotations

from pagedup.report.scan_result import ScanResult
from pagedup.report.units import human_size, page_size_label, percent, size_and_percent
from pagedup.sharing import Summary


def verdict(result: ScanResult) -> str:
    """What storing every identical page once would save, and what is left of it with larger pages."""
    small = result.page_sizes[0]
    label = page_size_label(small.page_size)
    if not small.frames:
        return f"No whole {label} page lies in the {human_size(result.bytes)} scanned, so there is nothing to share."
    saved = _saved(small)
    if not saved:
        return (
            f"Storing every identical {label} page once would save nothing of {human_size(result.bytes)}:"
            " no page is zero and no two pages are equal."
        )
    return (
        f"Storing every identical {label} page once would save {human_size(saved)} of {human_size(result.bytes)}"
        f" ({percent(saved, result.bytes)}): {_parts(small, result)}{_larger(result)}."
    )


def _saved(row: Summary) -> int:
    return (row.saved_zero + row.saved_nonzero) * row.page_size


def _parts(row: Summary, result: ScanResult) -> str:
    zero = f"{human_size(row.saved_zero * row.page_size)} of zero pages"
    if not row.saved_nonzero:
        return f"{zero} and no equal non-zero pages"
    equal = f"{human_size(row.saved_nonzero * row.page_size)} of equal non-zero pages"
    parts = f"{zero} and {equal}" if row.saved_zero else f"{equal} and no zero pages"
    if len(result.guests) == 1:
        return parts
    across = human_size(row.saved_across_guests * row.page_size) if row.saved_across_guests else "none"
    return f"{parts}, {across} of these across guests"


def _larger(result: ScanResult) -> str:
    """The same for 2M pages, the size that hypervisors like best; else for the largest that fits the memory."""
    rows = [row for row in result.page_sizes[1:] if row.frames]
    if not rows:
        return ""
    row = next((row for row in rows if row.page_size == 2 << 20), rows[-1])
    saved = size_and_percent(_saved(row), result.bytes) if _saved(row) else "nothing"
    return f"; with {page_size_label(row.page_size)} pages it would save {saved}"
