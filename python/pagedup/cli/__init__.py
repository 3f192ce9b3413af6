"""The command line: one file a subcommand."""

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run `pagedup` with these arguments (those of the process if left out); the exit code.

    Only here is anything imported: that takes a third of a second, in which an interrupt must already be caught.
    """
    try:
        from pagedup.cli import entry
    except KeyboardInterrupt:
        import sys

        if sys.stderr is not None:
            print("pagedup: interrupted", file=sys.stderr)
        return 130
    return entry.main(argv)
