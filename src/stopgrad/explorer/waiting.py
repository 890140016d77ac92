"""Work for a request that is given up once nobody waits for its answer.

A page that moves on drops its request. What goes on computing for it would slow down the next one.
"""

import asyncio
from collections.abc import Callable
from threading import Event
from typing import TypeVar

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

Answer = TypeVar("Answer")


async def while_waited_for(request: Request, work: Callable[[Callable[[], bool]], Answer]) -> Answer:
    """What ``work`` gives, done in a thread.

    Args:
        request: whose client may go away.
        work: its argument is a function that says whether the client has: it is to ask now and then.
    """
    gone = Event()

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        gone.set()

    watching = asyncio.ensure_future(watch())
    try:
        return await run_in_threadpool(work, gone.is_set)
    finally:
        watching.cancel()
