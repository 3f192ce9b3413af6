"""The answer in a few sentences: what sharing would save, what it costs, and why it is no more."""

from __future__ import annotations

from collections.abc import Iterator

from pagedup.memory import Apart
from pagedup.report.scan_result import ScanResult
from pagedup.report.units import human_size, human_time, page_size_label, percent, printable, size_and_percent
from pagedup.sharing import Summary

_MOST_SENTENCES = 8
_MATTERS = 0.05  # of all memory; less is not worth a sentence

_WHY = {
    Apart.SHARED_MAPPING: "is in files and shared mappings, which KSM cannot merge; only private anonymous memory can"
    " be shared (for QEMU: no share=on, and no memory in files)",
    Apart.HUGETLB: "is in hugetlb pages, which KSM never merges; transparent huge pages it can break",
    Apart.NOT_MERGEABLE: "is not marked MADV_MERGEABLE, so KSM will not look at it (for QEMU: -machine mem-merge=on)",
    Apart.ALREADY_SHARED: "is shared already, since a fork or merged: no new saving",
    Apart.ZERO_MAPPED: "maps the kernel's zero page already: no new saving",
    Apart.SWAPPED: "is swapped out and was not read",
    Apart.ABSENT: "was never given memory: it costs nothing, and sharing cannot save it",
}


def verdict(result: ScanResult) -> list[str]:
    """The answer, and the few things that whoever acts on it should know; the most important first."""
    return [sentence for _, sentence in zip(range(_MOST_SENTENCES), _sentences(result), strict=False)]


def _sentences(result: ScanResult) -> Iterator[str]:
    yield _answer(result)
    yield from _ksm(result)
    yield from _reasons(result)
    yield from _change(result)
    yield from _large_pages(result)
    yield from _separation(result)
    yield from _explained(result)


def _answer(result: ScanResult) -> str:
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


def _ksm(result: ScanResult) -> Iterator[str]:
    ksm = result.ksm
    if ksm is None or not ksm.pages:
        return
    net, more = ksm.as_shipped.general_profit, ksm.zero_pages.general_profit
    if net <= 0 and more <= 0:
        yield (
            "Linux KSM would take more memory for its bookkeeping than it frees (general_profit"
            f" {human_size(net)}): it pays only where more than one page in 64 is saved. Leave it off."
        )
        return
    better = (more - net) > _MATTERS * max(net, 0)
    yield (
        f"Linux KSM as it ships would free {human_size(net)} net of its bookkeeping"
        + (f", with use_zero_pages=1 and a high max_page_sharing {human_size(more)}" if better else "")
        + f"; it takes {human_time(ksm.default_pace.seconds)} at its default pace, and with"
        f" pages_to_scan={ksm.advised_pace.pages_to_scan} {human_time(ksm.advised_pace.seconds)}"
        f" ({100 * ksm.advised_pace.cpu:.0f} % of a CPU)."
    )


def _reasons(result: ScanResult) -> Iterator[str]:
    """Memory that was not scanned, where there is much of it."""
    apart = result.apart
    whole = result.bytes + sum(apart.values())
    for reason, size in sorted(apart.items(), key=lambda item: -item[1]):
        if reason in _WHY and size >= _MATTERS * whole:
            yield f"A further {human_size(size)} {_WHY[reason]}."


def _change(result: ScanResult) -> Iterator[str]:
    if (found := result.volatile) is not None and found.changed:
        yield (
            f"Of the pages looked at again after {human_time(found.seconds)},"
            f" {percent(found.changed, found.pages)} had changed; these are not worth sharing."
        )
    if (lifetime := result.lifetime) is not None and lifetime.half_life is not None:
        yield f"Half of the shared pages stay as they are for {human_time(lifetime.half_life)} ({lifetime.method})."
    elif lifetime is not None and lifetime.unchanged:
        seconds, left = lifetime.unchanged[-1]
        share = percent(left, lifetime.unchanged[0][1])
        yield f"After {human_time(seconds)}, {share} of the shared pages were as before."


def _large_pages(result: ScanResult) -> Iterator[str]:
    cost = result.large_pages
    if cost is None or not cost.to_break:
        return
    label = page_size_label(cost.page_size)
    step = next(step for step in cost.steps if step.percent == 95)
    few = f", the best {step.broken:,} of them for 95 % of the saving" if 0 < step.broken < cost.to_break else ""
    yield (
        f"Without breaking a {label} page {percent(cost.saved_unbroken, cost.saved)} of the saving is left;"
        f" the whole of it breaks {cost.to_break:,} of {cost.pages:,}{few}; KSM, which shares none whole, breaks"
        f" {cost.broken_by_ksm:,}."
    )


def _separation(result: ScanResult) -> Iterator[str]:
    isolation = result.isolation
    if isolation is not None and len(result.guests) > 1 and isolation.saved_together:
        together, apart = (pages * isolation.page_size for pages in (isolation.saved_together, isolation.saved_apart))
        who = "no guest shares with another" if isolation.domains == len(result.guests) else "only domains share"
        yield (
            f"Where {who}, {human_size(apart)} of the {human_size(together)} of equal non-zero pages are saved"
            f" ({percent(apart, together)})."
        )
    numa = result.numa
    if numa is not None and numa.saved_across_nodes > numa.saved_within_nodes:
        across, within = (pages * numa.page_size for pages in (numa.saved_across_nodes, numa.saved_within_nodes))
        yield (
            f"With merge_across_nodes=0, KSM saves {human_size(within)} of these {human_size(across)}"
            f" ({percent(within, across)})."
        )


def _explained(result: ScanResult) -> Iterator[str]:
    found = result.explanation
    if found is None or not found.saved_bytes:
        return
    share = percent(found.explained_bytes, found.saved_bytes)
    most = f", most in {printable(found.by_directory[0].path)}" if found.by_directory else ""
    yield f"Of the saving of non-zero pages {share} are pages of files in {printable(found.root)}{most}."
