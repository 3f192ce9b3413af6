"""The command line: one file a subcommand."""

import os
import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run `pagedup` with these arguments (those of the process if left out); the exit code.

    Only here is anything else imported: that takes a while, in which an interrupt must already be caught.
    """
    try:
        if "numpy" not in sys.modules:  # whose library for linear algebra, not used here, would start a thread a CPU
            os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from pagedup.cli import entry
    except KeyboardInterrupt:
        if sys.stderr is not None:
            print("pagedup: interrupted", file=sys.stderr)
        return 130
    return entry.main(argv)
