"""Work for a request that is given up once nobody waits for its answer, or once it has taken too long.

A page that moves on drops its request. What goes on computing for it would slow down the next one.
"""

import asyncio
import time
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from stopgrad.errors import UsageError

LONGEST = 30.0
"""Seconds that one request may take."""
Answer = TypeVar("Answer")


async def while_waited_for(
    request: Request, work: Callable[[Callable[[], bool]], Answer | None]
) -> Answer | None:
    """What ``work`` gives, done in a thread.

    Args:
        request: whose client may go away.
        work: its argument is a function that says whether to give up: it is to ask now and then, and then to
            give None.

    Raises:
        UsageError: if it has taken longer than `LONGEST`.
    """
    gone, end = Event(), time.monotonic() + LONGEST

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.ensure_future(watch())
    try:
        answer = await run_in_threadpool(work, lambda: gone.is_set() or time.monotonic() > end)
    finally:
        watching.cancel()
    if answer is None and not gone.is_set():
        raise UsageError(
            f"given up after {LONGEST:g} s: what these values ask for takes longer; a larger eta, a smaller "
            "beta or alpha_p, or a shorter time axis takes less"
        )
    return answer
