"""Running the explorer's server."""

import socket
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from stopgrad.errors import UsageError, require

HOST = "127.0.0.1"


def serve(runs: Sequence[Path], store: Path, port: int, *, open_browser: bool) -> None:
    """Serve the explorer on this machine until interrupted; the address is printed on stdout.

    Args:
        runs, store: see :func:`stopgrad.explorer.app.create_app`.
        port: 0 for any that is free.
        open_browser: whether to open the page.

    Raises:
        UsageError: if the port is taken.
        MissingExtra: if FastAPI, uvicorn or plotly is not installed.
    """
    uvicorn = require("uvicorn", "explorer")
    require("fastapi", "explorer")
    require("plotly", "report")
    from stopgrad.explorer.app import create_app

    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, port))
        except OSError:
            raise UsageError(f"--port: {port} is in use; another one, or 0 for any that is free") from None
        listener.listen()  # from here on a browser waits for the server, and is not refused
        address = f"http://{HOST}:{listener.getsockname()[1]}"
        print(f"explorer at {address} (Ctrl-C to stop)", flush=True)
        if open_browser:
            threading.Timer(0.3, webbrowser.open, [address]).start()
        app = create_app(runs, store)
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
        # a page that follows a run holds its connection open, for which the server would wait
        app.state.ending = lambda: server.should_exit
        server.run(sockets=[listener])
