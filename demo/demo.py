"""The main job on real input: several interpreter processes with different work, scanned while they live.

They are children of this process. That matters: an ordinary user may read another process's memory only when it is
a child, on a system that restricts ptrace (Debian and Ubuntu do so).
"""

import contextlib
import importlib.util
import json
import os
import signal
import subprocess
import sys
import sysconfig
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

import pagedup.cli

LIBRARY = Path(sysconfig.get_path("stdlib"))
AMOUNT = 12 << 20  # bytes of the library's source that a worker reads, at most


def sources() -> Iterator[tuple[str, str]]:
    """The modules of Python's own library: name and text."""
    read = 0
    for path in sorted(LIBRARY.rglob("*.py")):
        relative = path.relative_to(LIBRARY)
        if relative.parts[0] in ("site-packages", "dist-packages", "test"):
            continue
        text = path.read_text(errors="replace")
        read += len(text)
        if read > AMOUNT:
            return
        yield str(relative), text


def idle() -> object:
    """An interpreter with pagedup imported, waiting for work."""
    return None


def web() -> object:
    """Answers requests with JSON documents: one of two workers of one service."""
    documents = [json.dumps({"name": name, "lines": text.splitlines()}) for name, text in sources()]
    return documents, json.loads(documents[0])


def database() -> object:
    """Holds a database in memory: each line of each module, with an index."""
    import sqlite3

    connection = sqlite3.connect(":memory:")
    connection.execute("create table line (module text, number integer, content text)")
    for name, text in sources():
        rows = ((name, number, content) for number, content in enumerate(text.splitlines()))
        connection.executemany("insert into line values (?, ?, ?)", rows)
    connection.execute("create index by_module on line (module, number)")
    return connection


def arrays() -> object:
    """Counts letters in NumPy arrays, and keeps a large table that is mostly zero."""
    codes = np.frombuffer("".join(text for _, text in sources()).encode(), dtype=np.uint8)
    pairs = np.empty((1024, 4096), dtype=np.float64)
    pairs.fill(0)
    np.add.at(pairs, (codes[:-1].astype(np.intp), codes[1:].astype(np.intp)), 1)
    return codes, pairs, pairs[:256, :256] / len(codes)


def index() -> object:
    """Builds a dictionary from each word to the modules where it stands."""
    words: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for name, text in sources():
        for word in text.split():
            words[word][name] += 1
    return words


def files() -> object:
    """Holds files in memory, as a cache does."""
    return {name: text.encode() for name, text in sources()}


WORK: dict[str, Callable[[], object]] = {
    "idle": idle,
    "web": web,
    "database": database,
    "arrays": arrays,
    "index": index,
    "files": files,
}
PROCESSES = ["idle", "web", "web", "arrays", "index", "files", "database"]


def work(name: str) -> None:
    """In a child: do the work, say so, and keep the result until the parent closes our input, or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = threading.Thread(target=end_with_parent)
    parent.start()
    result = WORK[name]()
    os.write(sys.stdout.fileno(), b"ready\n")
    parent.join()
    del result


def end_with_parent() -> None:
    """End this process as soon as its input ends, whatever it is doing."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(0)


@contextlib.contextmanager
def workers(names: list[str]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that have done this work and wait. However this ends, they end: their input is a pipe from here."""
    with contextlib.ExitStack() as stack:
        processes = []
        for name in names:
            command = [sys.executable, __file__, name]
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(process)  # on leaving: closes the pipes and waits,
            stack.callback(process.terminate)  # after this
            processes.append(process)
        for name, process in zip(names, processes, strict=True):
            assert process.stdout is not None
            if process.stdout.readline() != b"ready\n":
                raise SystemExit(f"demo: the process for {name!r} ended before it was ready")
        yield processes


def main() -> int:
    """Start the processes, name the command, and run it."""
    names = [name for name in PROCESSES if name != "database" or importlib.util.find_spec("_sqlite3")]
    print(f"Starting {len(names)} Python processes:", flush=True)
    with workers(names) as processes:
        for name, process in zip(names, processes, strict=True):
            print(f"  pid:{process.pid}  {WORK[name].__doc__}")
        arguments = ["scan", *(f"pid:{process.pid}" for process in processes)]
        print(f"\n$ pagedup {' '.join(arguments)}", flush=True)
        return pagedup.cli.main(arguments) or 0


if __name__ == "__main__":
    if len(sys.argv) == 2:
        work(sys.argv[1])
    else:
        try:
            sys.exit(main())
        except KeyboardInterrupt:
            sys.exit(130)
