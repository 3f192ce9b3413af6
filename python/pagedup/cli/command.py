"""What a subcommand is, and how its command line can be wrong."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import NoReturn, Protocol


class UsageError(ValueError):
    """The command line asks for something that makes no sense."""


class Parser(argparse.ArgumentParser):
    """argparse, except that a wrong command line is an exception and not an exit with several lines."""

    def __init__(self, prog: str, description: str, epilog: str = "") -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; the message says where help is."""
        raise UsageError(f"{message} (see {self.prog} --help)")


class Command(Protocol):
    """One subcommand, in a module of its own."""

    @property
    def summary(self) -> str:
        """One line for `pagedup --help`."""

    def run(self, argv: Sequence[str]) -> int:
        """Do it for the arguments after the subcommand's name; the exit code. Errors are raised, not printed."""
