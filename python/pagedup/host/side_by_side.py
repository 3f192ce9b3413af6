"""Calls in child processes, some at a time: each has the memory of its parent, and sends its result back."""

from __future__ import annotations

import ctypes
import multiprocessing
import signal
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from multiprocessing.context import ForkProcess

_PROGRESS, _DONE, _FAILED = range(3)
_INTERRUPT = [signal.SIGINT]
_LOOK = 0.5  # seconds after which an interrupt is seen, should another thread have got the signal
_PR_SET_PDEATHSIG = 1  # linux/prctl.h

Progress = Callable[[str, int, int], None]
_T = TypeVar("_T")


def side_by_side(
    calls: Sequence[Callable[[Progress | None], _T]], processes: int, progress: Progress | None
) -> list[_T]:
    """The results of all calls, in their order, of which up to so many processes are under way at a time.

    A call is given a function to report its progress to; `progress` is called with that here. With one process all
    happens in this one. Raises what a call raises, and ChildProcessError if its process is killed; the others are ended
    then, as they are when this is interrupted.
    """
    if processes == 1 or len(calls) < 2:
        return [call(progress) for call in calls]
    results: dict[int, _T] = {}
    running: dict[Connection, tuple[int, ForkProcess]] = {}
    try:
        while len(results) < len(calls):
            while len(running) < processes and len(results) + len(running) < len(calls):
                number = len(results) + len(running)
                connection, process = _begin(calls[number], reports=progress is not None)
                running[connection] = number, process
            for ready in wait(list(running), _LOOK):
                assert isinstance(ready, Connection)
                number, process = running[ready]
                try:
                    what, told = ready.recv()
                except EOFError:
                    process.join()
                    raise ChildProcessError(f"a process of the simulation ended with {process.exitcode}") from None
                if what == _PROGRESS and progress is not None:
                    progress(*told)
                elif what == _FAILED:
                    raise told
                elif what == _DONE:
                    results[number] = told
                    del running[ready]
                    ready.close()
                    process.join()
    finally:
        for connection, (_, process) in running.items():
            process.kill()
            process.join()
            connection.close()
    return [results[number] for number in range(len(calls))]


def _begin(call: Callable[[Progress | None], Any], *, reports: bool) -> tuple[Connection, ForkProcess]:
    context = multiprocessing.get_context("fork")
    mine, its = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(call, its, reports), daemon=True)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _INTERRUPT)  # that one is for the parent, which ends its children
    try:
        process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    its.close()
    return mine, process


def _run(call: Callable[[Progress | None], Any], connection: Connection, reports: bool) -> None:
    def report(what: str, done: int, total: int) -> None:
        connection.send((_PROGRESS, (what, done, total)))

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # nobody would hear of the result
    try:
        result = call(report if reports else None)
    except Exception as error:
        connection.send((_FAILED, error))
    else:
        connection.send((_DONE, result))
