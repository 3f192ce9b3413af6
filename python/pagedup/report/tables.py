"""The tables of a scan."""

from __future__ import annotations

from pagedup.memory import Apart
from pagedup.report.scan_result import ScannedGuest, ScanResult
from pagedup.report.table import Table
from pagedup.report.units import human_size, human_time, page_size_label, percent, printable, size_and_percent
from pagedup.sharing import FileShare, KsmCounters

_SHOWN = 10  # regions, files and directories; the JSON has them all

REASONS = {
    Apart.ABSENT: "never given memory",
    Apart.SWAPPED: "swapped out",
    Apart.ZERO_MAPPED: "mapped to the kernel's zero page",
    Apart.ALREADY_SHARED: "shared already, since a fork or merged",
    Apart.SHARED_MAPPING: "files and shared mappings",
    Apart.HUGETLB: "hugetlb pages",
    Apart.NOT_MERGEABLE: "not marked mergeable",
    Apart.PARTIAL_PAGE: "ends that fill no page",
}
"""Why memory is counted apart, in a few words."""


def scan_tables(result: ScanResult) -> list[Table]:
    """All tables of the scan that have something to say, the most important one first."""
    tables = [
        _by_page_size(result),
        _by_guest(result),
        _apart(result),
        _most_shared(result),
        _ksm(result),
        _ksm_pace(result),
        _large_pages(result),
        _separation(result),
        _volatile(result),
        _lifetime(result),
        _regions(result),
        _relocation(result),
        *_files(result),
    ]
    return [table for table in tables if table.rows]


def _by_page_size(result: ScanResult) -> Table:
    rows = []
    for row in result.page_sizes:
        size = row.page_size
        saved = row.saved_zero + row.saved_nonzero
        rows.append(
            (
                page_size_label(size),
                f"{row.frames:,}",
                f"{row.zero:,}",
                f"{row.distinct:,}",
                size_and_percent(saved * size, result.bytes),
                human_size(row.saved_zero * size),
                human_size(row.saved_nonzero * size),
                human_size(row.saved_within_guests * size),
                human_size(row.saved_across_guests * size),
                human_size(row.excluded_bytes),
            )
        )
    return Table(
        f"Storing identical pages once, in {human_size(result.bytes)} of memory",
        ("page", "frames", "zero", "distinct", "saved", "zero", "non-zero", "within", "across", "excluded"),
        rows,
        "saved: zero + non-zero; non-zero: within + across guests; excluded: where no whole aligned page lies",
    )


def _by_guest(result: ScanResult) -> Table:
    size = result.page_size
    domains = any(guest.domain is not None for guest in result.guests)
    rows = []
    for guest, found in zip(result.guests, result.per_guest, strict=True):
        row = [
            _label(guest),
            human_size(guest.bytes),
            size_and_percent(found.zero * size, guest.bytes),
            human_size(found.nonzero * size),
            human_size(found.distinct * size),
            size_and_percent(found.saved_within * size, guest.bytes),
            size_and_percent(found.shared_across * size, guest.bytes),
        ]
        if domains:
            row.insert(1, printable(guest.domain or ""))
        rows.append(row)
    headers = ["guest", "memory", "zero", "non-zero", "distinct", "saved within", "also in others"]
    if domains:
        headers.insert(1, "domain")
    return Table(f"By guest, in {page_size_label(size)} pages", headers, rows)


def _most_shared(result: ScanResult) -> Table:
    rows = [
        (
            printable(result.guests[content.guest].name),
            f"{content.address:#x}",
            f"{content.copies:,}",
            f"{content.n_guests:,}",
            human_size((content.copies - 1) * result.page_size),
        )
        for content in result.most_shared
    ]
    title = f"Most shared non-zero contents, in {page_size_label(result.page_size)} pages"
    return Table(title, ("first in", "at address", "copies", "in guests", "saved"), rows)


def _apart(result: ScanResult) -> Table:
    """Memory that sharing cannot save."""
    apart = result.apart
    whole = result.bytes + sum(apart.values())
    rows = [
        (
            REASONS[reason],
            size_and_percent(size, whole),
            f"{sum(guest.apart.get(reason, 0) > 0 for guest in result.guests):,}",
        )
        for reason, size in sorted(apart.items(), key=lambda item: -item[1])
    ]
    return Table(f"Not scanned, of {human_size(whole)}", ("because it is", "memory", "in guests"), rows)


def _ksm(result: ScanResult) -> Table:
    rows = []
    if result.ksm is not None:
        choices = (
            ("as it ships", result.ksm.as_shipped),
            ("use_zero_pages=1, no limit on sharing", result.ksm.zero_pages),
        )
        rows = [_ksm_row(name, counters) for name, counters in choices]
    return Table(
        "What Linux KSM would show",
        ("settings", "shared", "sharing", "unshared", "volatile", "zero pages", "general profit"),
        rows,
        "were it all mergeable; general profit: what sharing and zero pages free, less 64 bytes for each page scanned",
    )


def _ksm_row(name: str, counters: KsmCounters) -> tuple[str, ...]:
    return (
        name,
        f"{counters.pages_shared:,}",
        f"{counters.pages_sharing:,}",
        f"{counters.pages_unshared:,}",
        f"{counters.pages_volatile:,}",
        f"{counters.ksm_zero_pages:,}",
        human_size(counters.general_profit),
    )


def _ksm_pace(result: ScanResult) -> Table:
    rows = []
    if result.ksm is not None:
        paces = (("as it ships", result.ksm.default_pace), ("as its advisor aims at", result.ksm.advised_pace))
        rows = [
            (name, f"{pace.pages_to_scan:,}", human_time(pace.seconds), f"{100 * pace.cpu:.1f} %")
            for name, pace in paces
        ]
    return Table("How soon KSM would be done", ("pace", "pages_to_scan", "at least", "of a CPU"), rows)


def _large_pages(result: ScanResult) -> Table:
    cost = result.large_pages
    if cost is None or not cost.pages:
        return Table("", (), ())
    large, small = page_size_label(cost.page_size), page_size_label(cost.small_page_size)
    total = cost.saved * cost.small_page_size
    counted: list[tuple[str, int, str]] = [
        ("hold a page to save", cost.with_saving, ""),
        ("zero, or equal to an earlier one: need no breaking", cost.whole, _saved(cost.saved_unbroken, result)),
        ("must be broken", cost.to_break, _saved(cost.saved, result)),
        ("broken by KSM, which shares none whole", cost.broken_by_ksm, ""),
    ]
    counted += [
        (f"fewest to break for {step.percent} % of the saving", step.broken, _saved(step.saved, result))
        for step in cost.steps
        if step.percent < 100
    ]
    rows = [("all", f"{cost.pages:,}", "100.0 %", "")]
    rows += [(name, f"{number:,}", percent(number, cost.pages), saved) for name, number, saved in counted]
    return Table(
        f"What sharing {small} pages does to {large} pages",
        (f"{large} pages", "number", "of all", "saved so far"),
        rows,
        f"saved so far: of the {human_size(total)} that sharing {small} pages saves in all",
    )


def _saved(pages: int, result: ScanResult) -> str:
    cost = result.large_pages
    assert cost is not None
    return size_and_percent(pages * cost.small_page_size, cost.saved * cost.small_page_size)


def _separation(result: ScanResult) -> Table:
    rows = []
    if (isolation := result.isolation) is not None and len(result.guests) > 1:
        together, apart = (pages * isolation.page_size for pages in (isolation.saved_together, isolation.saved_apart))
        rows += [
            ("all guests share", human_size(together), "100.0 %"),
            (_domains(isolation.domains, result), human_size(apart), percent(apart, together)),
        ]
    if (numa := result.numa) is not None:
        across, within = (pages * numa.page_size for pages in (numa.saved_across_nodes, numa.saved_within_nodes))
        rows += [
            ("merge_across_nodes=1", human_size(across), "100.0 %"),
            (f"merge_across_nodes=0, {numa.nodes:,} nodes", human_size(within), percent(within, across)),
        ]
    return Table("What keeping memory apart leaves of the non-zero saving", ("who shares", "saved", "is left"), rows)


def _domains(count: int, result: ScanResult) -> str:
    return "no guest with another" if count == len(result.guests) else f"only within {count:,} domains"


def _volatile(result: ScanResult) -> Table:
    rows = []
    if (found := result.volatile) is not None:
        rows = [
            (
                f"{human_time(found.seconds)} later",
                f"{found.pages:,}",
                f"{found.changed:,}",
                percent(found.changed, found.pages),
                f"{found.changed_zero:,}",
                f"{found.changed_nonzero:,}",
            )
        ]
    return Table(
        "What changed while it was scanned, in pages",
        ("looked again", "pages", "changed", "of them", "had been zero", "non-zero"),
        rows,
    )


def _lifetime(result: ScanResult) -> Table:
    rows = []
    note = ""
    if (found := result.lifetime) is not None and found.unchanged:
        whole = found.unchanged[0][1]
        rows = [
            (human_time(seconds) if seconds else "at first", f"{pages:,}", percent(pages, whole))
            for seconds, pages in found.unchanged
        ]
        note = found.method
    return Table("How long shared pages stay as they are", ("after", "unchanged pages", "of all"), rows, note)


def _regions(result: ScanResult) -> Table:
    size = result.page_size
    rows = [
        (
            printable(region.name),
            f"{region.guests:,}",
            human_size(region.pages * size),
            human_size(region.zero * size),
            human_size(region.unique * size),
            human_size(region.saved_within * size),
            human_size(region.saved_across * size),
        )
        for region in result.regions[:_SHOWN]
    ]
    headers = ("region", "in guests", "memory", "zero", "unique", "saved within", "saved across")
    return Table(f"By region, in {page_size_label(size)} pages", headers, rows)


def _relocation(result: ScanResult) -> Table:
    rows = [
        (
            f"{row.kind} {row.machine} {row.section}",
            f"{row.pages:,}",
            f"{row.fixup_pages:,}",
            percent(row.fixup_pages, row.pages),
            f"{row.import_pages:,}",
        )
        for row in result.relocation
    ]
    headers = ("images and section", "pages", "depend on the base", "of them", "hold imports")
    return Table("What relocation changes, in 4K pages", headers, rows)


def _files(result: ScanResult) -> list[Table]:
    found = result.explanation
    if found is None:
        return []
    return [
        Table(
            f"{what} whose pages are shared, in {printable(found.root)}",
            ("path", "contents", "copies in guests", "saved"),
            [_file_row(share) for share in shares[:_SHOWN]],
        )
        for what, shares in (("Directories", found.by_directory), ("Files", found.by_file))
    ]


def _file_row(share: FileShare) -> tuple[str, ...]:
    return printable(share.path), f"{share.contents:,}", f"{share.copies:,}", human_size(share.saved_bytes)


def _label(guest: ScannedGuest) -> str:
    return printable(f"{guest.name} ({guest.detail})" if guest.detail else guest.name)
