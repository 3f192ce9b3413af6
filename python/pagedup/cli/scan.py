"""`pagedup scan`: what storing every identical page of real memory once would save."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack

from pagedup.cli.command import Parser, UsageError
from pagedup.cli.domains import read_domains
from pagedup.cli.progress import progress_display
from pagedup.cli.sizes import parse_page_size, spread_page_sizes
from pagedup.memory import Progress, Source, name_sources, open_sources
from pagedup.report import ScannedGuest, ScanResult, scan_json
from pagedup.sharing import Duplicates, find_duplicates, most_shared, summarize, summarize_guests

_BASE_PAGE = 4096  # bytes; larger sizes follow from its classes without reading the memory again
_DEFAULT_PAGE_SIZES = ("4K", "16K", "64K", "2M", "1G")
_MOST_SHARED = 5

_DESCRIPTION = """\
Find every identical page in the memory of the given guests, and tell what storing each content once would save:
by page size, of zero and other pages, within each guest and across guests. Nothing is changed.

A SOURCE is one guest's memory:
  PATH     a raw memory image; holes of a sparse file count as zero and are not read
  pid:N    a live process: its private anonymous pages that are in memory now (it runs on meanwhile)
A path that holds a colon is written with its directory: ./pid:1
"""

_EPILOG = """\
examples:
  pagedup scan vm1.img vm2.img vm3.img      three guests, which may all share with one another
  pagedup scan --isolate-guests *.img       each guest shares only with itself
  pagedup scan --domains tenants.toml *.img as the file says; a guest is named by its file without the suffix:
                                              [domains]
                                              vm1 = "red"
                                              vm2 = "red"
                                              vm3 = "blue"
  pagedup scan --page-size 4K 2M vm1.img    only these page sizes
  pagedup scan --json pid:4711 pid:4712     two live processes, as data for a program

exit codes: 0 done, 1 something could not be read, 2 wrong usage, 130 interrupted
"""


class ScanCommand:
    """Reads the sources, groups their pages once, and shows the answer for every page size."""

    summary = "what identical pages in memory images and live processes would save"

    def run(self, argv: Sequence[str]) -> int:
        """Scan; 0, since every failure is raised."""
        # Intermixed, so that options may stand between sources.
        options = _parser().parse_intermixed_args(spread_page_sizes(argv, "--page-size"))
        sizes = sorted({parse_page_size(text) for text in options.page_size or _DEFAULT_PAGE_SIZES})
        if options.threads is not None and options.threads < 1:
            raise UsageError(f"--threads {options.threads}: at least 1 is needed")
        result = _scan(options, sizes)
        if options.json:
            print(json.dumps(scan_json(result), indent=2))
        else:
            _print_tables(result)
        return 0


def _parser() -> Parser:
    parser = Parser("pagedup scan", _DESCRIPTION, _EPILOG)
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="a raw memory image, or pid:N")
    parser.add_argument(
        "--page-size",
        metavar="SIZE",
        action="append",
        help="ask about this page size, a power of two from 8 to 1G; several may follow, and the option may be"
        f" repeated (default: {' '.join(_DEFAULT_PAGE_SIZES)})",
    )
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--isolate-guests", action="store_true", help="no guest shares with another")
    limits.add_argument("--domains", metavar="FILE.toml", help="only guests of one domain share")
    parser.add_argument("--threads", metavar="N", type=int, help="use so many threads (default: as the machine allows)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON, schema pagedup.scan/1")
    return parser


def _scan(options: Namespace, sizes: Sequence[int]) -> ScanResult:
    base = min(_BASE_PAGE, sizes[0])
    domains = _domains(options)  # first, since copying the processes may take minutes
    with progress_display() as progress, ExitStack() as stack:
        sources = open_sources(options.sources, progress, frame_size=base)
        for source in sources:
            stack.enter_context(source)
        duplicates = find_duplicates(
            [source.extents for source in sources],
            frame_size=base,
            domains=domains,
            threads=options.threads,
            progress=progress,
        )
        for source in sources:
            source.check()
        guests = _guests(sources, domains)
        return _result(duplicates, guests, sizes, progress)


def _domains(options: Namespace) -> list[str] | None:
    if options.isolate_guests:
        return name_sources(options.sources)
    return read_domains(options.domains, name_sources(options.sources)) if options.domains is not None else None


def _guests(sources: Sequence[Source], domains: list[str] | None) -> list[ScannedGuest]:
    return [
        ScannedGuest(
            source.name, source.text, source.kind, source.detail, source.size, domains[index] if domains else None
        )
        for index, source in enumerate(sources)
    ]


def _result(
    duplicates: Duplicates, guests: list[ScannedGuest], sizes: Sequence[int], progress: Progress | None
) -> ScanResult:
    """Ask the one grouping about every page size; each from the one before it, which has fewer frames."""
    summaries = []
    smallest = duplicates = duplicates.coarsen(sizes[0] // duplicates.frame_size)
    for index, size in enumerate(sizes):
        if progress is not None:
            progress("page sizes", index, len(sizes))
        duplicates = duplicates.coarsen(size // duplicates.frame_size)
        summaries.append(summarize(duplicates))
    return ScanResult(
        guests, summaries, summarize_guests(smallest), most_shared(smallest, _MOST_SHARED), duplicates.work._asdict()
    )


def _print_tables(result: ScanResult) -> None:
    # Only here: rich is slow to import, and programs read the JSON.
    from rich.console import Console

    from pagedup.report.terminal import MIN_WIDTH, scan_text

    console = Console()
    # A narrow terminal breaks a long line in two, where rich would cut numbers off; a file has no width at all.
    console.width = max(console.width, MIN_WIDTH)
    console.print(scan_text(result))
