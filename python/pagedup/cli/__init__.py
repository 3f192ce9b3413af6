"""The command line: one file a subcommand."""

from pagedup.cli.entry import main

__all__ = ["main"]
