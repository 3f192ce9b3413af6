"""The command `pagedup`: finds the subcommand, and turns every error into one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from pagedup.cli.command import Command, Parser, UsageError
from pagedup.cli.layout import LayoutCommand
from pagedup.cli.scan import ScanCommand
from pagedup.cli.simulate import SimulateCommand
from pagedup.memory import SourceTextError
from pagedup.report.units import printable

USAGE, FAILURE, INTERRUPTED = 2, 1, 130

_COMMANDS: dict[str, Command] = {
    "scan": ScanCommand(),
    "layout": LayoutCommand(),
    "simulate": SimulateCommand(),
}


def main(argv: list[str] | None = None) -> int:
    """Run these arguments (those of the process if left out); the exit code, after at most one line of error."""
    if sys.stdout is None:  # it was closed before we began
        return _fail("stdout is closed", FAILURE)
    try:
        # A file name may hold what the terminal's encoding does not.
        if hasattr(sys.stdout, "reconfigure"):
            sys.stdout.reconfigure(errors="backslashreplace")
        try:
            code = _run(sys.argv[1:] if argv is None else argv)
        except SystemExit:  # argparse has printed the help
            code = 0
        sys.stdout.flush()  # here, where a full disk or a closed pipe still has a handler
        return code
    except (UsageError, SourceTextError) as error:
        return _fail(str(error), USAGE)
    except KeyboardInterrupt:
        return _fail("interrupted", INTERRUPTED)
    except BrokenPipeError:  # whoever read the output has enough
        _drop_output()
        return FAILURE
    except MemoryError as error:
        return _fail(f"out of memory{f': {error}' if str(error) else ''}", FAILURE)
    except OSError as error:
        _drop_output()
        return _fail(_describe(error), FAILURE)
    except ValueError as error:
        return _fail(str(error), FAILURE)
    except RuntimeError as error:  # the engine's, of memory that changes too fast; what derives from it is a defect
        if type(error) is not RuntimeError:
            raise
        return _fail(str(error), FAILURE)


def _run(argv: Sequence[str]) -> int:
    if argv and argv[0] in _COMMANDS:
        return _COMMANDS[argv[0]].run(argv[1:])
    parser = _top_parser()
    arguments = parser.parse_args(argv)
    if arguments.version:
        from importlib.metadata import version  # only here: it takes longer to import than the rest of this room

        print(f"pagedup {version('pagedup')}")
        return 0
    if arguments.command is None:
        parser.error("no command")
    parser.error(f"unknown command '{arguments.command}'; known: {', '.join(_COMMANDS)}")


def _top_parser() -> Parser:
    commands = "\n".join(f"  {name:10} {command.summary}" for name, command in _COMMANDS.items())
    parser = Parser(
        "pagedup",
        "What does storing every identical memory page once really buy?",
        f"commands:\n{commands}\n\n'pagedup COMMAND --help' tells more.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    parser.add_argument("command", metavar="COMMAND", nargs="?", help="one of those below, and its own arguments")
    return parser


def _describe(error: OSError) -> str:
    """Which file, and what is wrong with it; Python's own text leads with an error number."""
    if error.strerror is None:
        return str(error)
    return f"{os.fsdecode(error.filename)}: {error.strerror}" if error.filename is not None else error.strerror


def _fail(message: str, code: int) -> int:
    """One line on stderr, whatever the message holds."""
    if sys.stderr is not None:  # where it was closed, print would take stdout
        print(f"pagedup: {printable(message)}", file=sys.stderr, flush=True)
    return code


def _drop_output() -> None:
    """If stdout cannot be written, forget what it holds: the interpreter would try again at its end, and complain."""
    try:
        sys.stdout.flush()
    except OSError:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, sys.stdout.fileno())
        os.close(null)
