"""`pagedup scan`: what storing every identical page of real memory once would save."""

from __future__ import annotations

import math
from argparse import Namespace
from collections.abc import Sequence
from contextlib import ExitStack

from pagedup.cli.answer import add_answer_options, answer
from pagedup.cli.command import Parser, UsageError
from pagedup.cli.domains import read_domains
from pagedup.cli.examine import Examined, Question, examine
from pagedup.cli.progress import progress_display
from pagedup.cli.sizes import DEFAULT_PAGE_SIZES, parse_page_size, spread_page_sizes
from pagedup.memory import LiveOptions, LiveSource, Source, list_sources, name_sources, open_sources
from pagedup.memory.files.filetree import open_tree
from pagedup.memory.layouts import PAGE, LayoutSource
from pagedup.report import SCAN_SCHEMA
from pagedup.report.units import page_size_label

_BASE_PAGE = 4096  # bytes; larger sizes follow from its classes without reading the memory again

_DESCRIPTION = """\
Find every identical page in the memory of the given guests, and tell what storing each content once would save:
by page size, of zero and other pages, within each guest and across guests; what Linux KSM would make of it; and why
the saving is small where it is. Nothing is changed.

A SOURCE is one guest's memory:
  PATH        a dump, recognised by its content: ELF core (QEMU's dump-guest-memory, gcore, kernel crash cores), LiME,
              a saved layout, or else a raw image; holes of a sparse file count as zero and are not read. LiME's raw
              format has lost the holes between ranges: behind the first one addresses are shifted, and so are large
              pages
  pid:N       a live process: its private anonymous pages that are in memory now and nobody else maps
  qemu:NAME   a live QEMU guest, by its -name or process number: its RAM
  qemu:PATH   the same, by the path of its QMP socket (with a slash)
  qemu:all    every live QEMU guest
Live memory runs on while it is read; what repeats is read twice, and what moved meanwhile is reported as volatile.
A path that holds a colon is written with its directory: ./pid:1
"""

_EPILOG = """\
examples:
  pagedup scan vm1.img vm2.img vm3.img      three guests, which may all share with one another
  pagedup scan qemu:all --html report.html  all guests of this host, as a page to pass on
  pagedup scan --isolate-guests *.img       each guest shares only with itself
  pagedup scan --domains tenants.toml *.img as the file says; a guest is named by its file without the suffix:
                                              [domains]
                                              vm1 = "red"
                                              vm2 = "red"
                                              vm3 = "blue"
  pagedup scan --page-size 4K 2M vm1.img    only these page sizes
  pagedup scan --repeat 10 --interval 60 qemu:web1 qemu:web2
                                            how long sharing would last
  pagedup scan --explain /srv/root vm1.img  which files the shared pages are of
  pagedup scan --json pid:4711 pid:4712     two live processes, as data for a program

exit codes: 0 done, 1 something could not be read, 2 wrong usage, 130 interrupted
"""


class ScanCommand:
    """Reads the sources, groups their pages once, and shows the answer for every page size."""

    summary = "what identical pages in memory dumps, live guests and processes would save"

    def run(self, argv: Sequence[str]) -> int:
        """Scan; 0, since every failure is raised."""
        # Intermixed, so that options may stand between sources.
        options = _parser().parse_intermixed_args(spread_page_sizes(argv, "--page-size"))
        sizes = sorted({parse_page_size(text) for text in options.page_size or ()}) or list(DEFAULT_PAGE_SIZES)
        _refuse_nonsense(options)
        answer(options, ["scan", *argv], lambda: _scan(options, sizes))
        return 0


def _parser() -> Parser:
    parser = Parser("pagedup scan", _DESCRIPTION, _EPILOG)
    parser.add_argument("sources", metavar="SOURCE", nargs="+", help="a dump, a layout, pid:N, or qemu:NAME")
    parser.add_argument(
        "--page-size",
        metavar="SIZE",
        action="append",
        help="ask about this page size, a power of two from 8 to 1G; several may follow, and the option may be"
        f" repeated (default: {' '.join(map(page_size_label, DEFAULT_PAGE_SIZES))})",
    )
    limits = parser.add_mutually_exclusive_group()
    limits.add_argument("--isolate-guests", action="store_true", help="no guest shares with another")
    limits.add_argument("--domains", metavar="FILE.toml", help="only guests of one domain share")
    parser.add_argument("--threads", metavar="N", type=int, help="use so many threads (default: as the machine allows)")
    live = parser.add_argument_group("live sources")
    live.add_argument("--mergeable", action="store_true", help="only memory that is marked MADV_MERGEABLE, as for KSM")
    live.add_argument("--pause", action="store_true", help="freeze the processes while they are read")
    live.add_argument("--spool", metavar="DIR", help="keep copies in this folder, where they do not fit in memory")
    live.add_argument(
        "--repeat", metavar="N", type=int, default=1, help="look N times at what was equal: how long does it last?"
    )
    live.add_argument(
        "--interval", metavar="S", type=float, default=0.0, help="seconds from one look to the next (default: at once)"
    )
    parser.add_argument("--explain", metavar="DIR|IMAGE", help="tell which of these files the shared pages are of")
    add_answer_options(parser, SCAN_SCHEMA)
    return parser


def _refuse_nonsense(options: Namespace) -> None:
    if options.threads is not None and options.threads < 1:
        raise UsageError(f"--threads {options.threads}: at least 1 is needed")
    if options.repeat < 1:
        raise UsageError(f"--repeat {options.repeat}: at least 1 is needed")
    if not (math.isfinite(options.interval) and options.interval >= 0):
        raise UsageError(f"--interval {options.interval:g}: seconds are needed, 0 or more")
    if options.repeat > 1 and not options.interval:
        raise UsageError("--repeat needs --interval S: the seconds from one look to the next")


def _scan(options: Namespace, sizes: Sequence[int]) -> Examined:
    base = min(_BASE_PAGE, sizes[0])
    options.sources = list_sources(options.sources)
    domains = _domains(options)
    with progress_display() as progress, ExitStack() as stack:
        tree = stack.enter_context(open_tree(options.explain)) if options.explain is not None else None
        live = LiveOptions(mergeable=options.mergeable, pause=options.pause, spool=options.spool)
        sources = open_sources(options.sources, progress, frame_size=base, live=live)
        for source in sources:
            stack.enter_context(source)
        _refuse_options_of_live(options, sources)
        _refuse_options_of_bytes(options, sources, base)
        question = Question(
            sizes, domains, options.threads, options.repeat, options.interval, tree, options.html is not None
        )
        return examine(sources, question, base, progress)


def _domains(options: Namespace) -> list[str] | None:
    if options.isolate_guests:
        return name_sources(options.sources)
    return read_domains(options.domains, name_sources(options.sources)) if options.domains is not None else None


def _refuse_options_of_live(options: Namespace, sources: Sequence[Source]) -> None:
    if any(isinstance(source, LiveSource) for source in sources):
        return
    for name, given in (
        ("--mergeable", options.mergeable),
        ("--pause", options.pause),
        ("--spool", options.spool is not None),
        ("--repeat", options.repeat > 1),
        ("--interval", options.interval > 0),
    ):
        if given:
            raise UsageError(f"{name} is for live sources (pid:N, qemu:NAME), and none is given")


def _refuse_options_of_bytes(options: Namespace, sources: Sequence[Source], frame_size: int) -> None:
    layout = next((source for source in sources if isinstance(source, LayoutSource)), None)
    if layout is None:
        return
    if frame_size < PAGE:
        raise UsageError(f"--page-size {frame_size}: {layout.text} is a layout, which knows only whole pages of {PAGE}")
    if options.explain is not None:
        raise UsageError(f"--explain: {layout.text} is a layout, which has no bytes to find in files")
