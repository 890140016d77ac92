"""Processes for a handful of trainings that belong together."""

import multiprocessing
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager


@contextmanager
def process_pool(count: int) -> Iterator[ProcessPoolExecutor]:
    """``count`` processes, which an error ends too, else they would train all that waits to its end.

    SIGTERM is Ctrl-C from then on, and either ends the program without a word, as Ctrl-C ends a command.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with ProcessPoolExecutor(count) as pool:
        try:
            yield pool
        except BaseException as error:
            for child in multiprocessing.active_children():
                child.kill()
            if isinstance(error, KeyboardInterrupt):
                sys.exit(128 + signal.SIGINT)
            raise
