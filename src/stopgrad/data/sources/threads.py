"""Decoding many files at once, with a progress bar for long work."""

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")
Result = TypeVar("Result")

_LONG = 1000
_AT_ONCE = 4096


def processors() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_threads(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    keep: Callable[[int, Result], object],
    title: str,
    workers: int | None = None,
) -> None:
    """Call ``keep(i, function(items[i]))`` for all items, in their order; ``function`` runs in threads.

    Decoders let go of the interpreter lock, so threads suffice. The bar goes to stderr if it is a terminal.
    """
    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    hidden = len(items) < _LONG or not console.is_terminal
    with (
        Progress(*columns, console=console, transient=True, disable=hidden) as bar,
        ThreadPoolExecutor(workers or processors()) as pool,
    ):
        task = bar.add_task(title, total=len(items))
        for start in range(0, len(items), _AT_ONCE):  # not all results at once
            for i, result in enumerate(pool.map(function, items[start : start + _AT_ONCE]), start):
                keep(i, result)
                bar.advance(task)
