"""`pagedup layout`: what identical pages would save of simulated guests."""

from __future__ import annotations

import errno
import os
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from pagedup.cli.answer import add_answer_options, answer
from pagedup.cli.command import Parser, UsageError
from pagedup.cli.examine import Examined, Question, examine
from pagedup.cli.progress import progress_display
from pagedup.cli.sizes import DEFAULT_PAGE_SIZES
from pagedup.memory import Progress
from pagedup.memory.layouts import PAGE, LayoutSource
from pagedup.report import SCAN_SCHEMA

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from pagedup.guests import GuestSpec, Layout
    from pagedup.guests.images import Image

_DESCRIPTION = """\
Make guests up, from a preset or a specification of an operating system and its load, and tell what storing each content
once would save of them: the report that `pagedup scan` makes of real ones, by what the guests use their memory for.

A GUEST is
  PRESET      {presets}
  SPEC.toml   a specification of your own (docs/layouts.md)
  IMAGES      Windows or Linux programs and libraries, a directory or a wheel of them: guests that have loaded these,
              and what relocation changes (extra `images`)
"""

_EPILOG = """\
examples:
  pagedup layout vdi-50                       fifty Windows 7 desktops on one host
  pagedup layout windows-xp debian-server --guests 10
                                              ten of each, which may all share with one another
  pagedup layout numpy-2.4.6-cp311-cp311-win32.whl
                                              what relocation leaves of sharing real DLLs
  pagedup layout debian-server --out guests --bytes
                                              save layouts, and memory dumps with their bytes

exit codes: 0 done, 1 something could not be made or written, 2 wrong usage, 130 interrupted
"""


class LayoutCommand:
    """Generates guests, saves them where that is asked for, and examines them as if they were real."""

    summary = "what identical pages of simulated guests would save"

    def run(self, argv: Sequence[str]) -> int:
        """Generate and examine; 0, since every failure is raised."""
        options = _parser().parse_intermixed_args(argv)
        _refuse_nonsense(options)
        if options.out is not None:
            _refuse_early(options.out)
        chosen = _choose(options.guest)
        answer(options, ["layout", *argv], lambda: _examine(options, chosen))
        return 0


def _parser() -> Parser:
    from pagedup.guests import preset_names

    names = ", ".join(preset_names())
    parser = Parser("pagedup layout", _DESCRIPTION.format(presets=names), _EPILOG)
    parser.add_argument("guest", metavar="GUEST", nargs="+", help="a preset, a specification in a TOML file, or images")
    parser.add_argument("--guests", metavar="N", type=int, help="so many of each (default: as each says, mostly 1)")
    parser.add_argument("--seed", metavar="S", type=int, default=0, help="other guests of the same kind (default: 0)")
    parser.add_argument("--out", metavar="DIR", help="save the layouts there, one file (.npz) a guest")
    parser.add_argument("--bytes", action="store_true", help="with --out: memory dumps (.lime) with their bytes, too")
    add_answer_options(parser, SCAN_SCHEMA)
    return parser


def _refuse_nonsense(options: Namespace) -> None:
    if options.guests is not None and options.guests < 1:
        raise UsageError(f"--guests {options.guests}: at least 1 is needed")
    if options.seed < 0:
        raise UsageError(f"--seed {options.seed}: 0 or more is needed")
    if options.bytes and options.out is None:
        raise UsageError("--bytes needs --out DIR, the folder to write to")


def _refuse_early(folder: str) -> None:
    """Raise OSError where nothing can be written; the folder itself is made only once there is something to write."""
    nearest = os.path.realpath(folder)
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), folder)
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, f"no permission to write in {nearest}", folder)


@dataclass(frozen=True, slots=True)
class _Chosen:
    """What to generate: specifications, each with the text that asked for it, and the images that were named."""

    specs: Sequence[GuestSpec]
    texts: Sequence[str]
    images: Sequence[Image]


def _choose(texts: Sequence[str]) -> _Chosen:
    from pagedup.guests import preset_names, read_spec, specs_of_images

    known = preset_names()
    specs, sources, paths = [], [], []
    for text in texts:
        if text in known or not (text.endswith(".toml") or os.path.exists(text)):
            specs.append(_preset(text))
        elif text.endswith(".toml"):
            specs.append(read_spec(text))
        else:
            paths.append(text)
            continue
        sources.append(text)
    images: Sequence[Image] = ()
    if paths:
        of_images, images = specs_of_images(paths)
        specs += of_images
        sources += [", ".join(paths)] * len(of_images)
    return _Chosen(specs, sources, images)


def _preset(name: str) -> GuestSpec:
    from pagedup.guests import SpecError, preset

    try:
        return preset(name)
    except SpecError as error:  # a word of the command line is wrong, as a source of no known kind is
        raise UsageError(f"{error}, and no such file") from None


def _examine(options: Namespace, chosen: _Chosen) -> Examined:
    from pagedup.guests import generate

    with progress_display() as progress:
        layouts = generate(chosen.specs, options.guests, options.seed, progress=progress)
        if options.out is not None:
            _save(layouts, options.out, options.bytes, progress)
        counts = [spec.guests if options.guests is None else options.guests for spec in chosen.specs]
        texts = [text for text, count in zip(chosen.texts, counts, strict=True) for _ in range(count)]
        sources = [LayoutSource(layout.name, text, layout) for layout, text in zip(layouts, texts, strict=True)]
        examined = examine(sources, Question(DEFAULT_PAGE_SIZES, digests=options.html is not None), PAGE, progress)
        if not chosen.images:
            return examined
        from pagedup.guests.images import relocation_table

        return replace(examined, result=replace(examined.result, relocation=relocation_table(chosen.images)))


def _save(layouts: Sequence[Layout], folder: str, with_bytes: bool, progress: Progress | None) -> None:
    from pagedup.memory.dumps.lime_file import write_lime

    os.makedirs(folder, exist_ok=True)
    for done, layout in enumerate(layouts, 1):
        path = os.path.join(folder, layout.name)
        layout.save(f"{path}.npz")
        if with_bytes:
            write_lime(f"{path}.lime", _present(layout))
        if progress is not None:
            progress("saving", done, len(layouts))


def _present(layout: Layout) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The bytes of the pages that are not absent, in stretches, each with its address."""
    from pagedup.guests import materialize

    pages = materialize(layout)
    edges = np.flatnonzero(np.diff(layout.present, prepend=False, append=False)).tolist()
    for begin, end in zip(edges[::2], edges[1::2], strict=True):
        yield begin * PAGE, pages[begin:end]
