"""What keeps the explorer to this machine: the server listens on the loopback address, and asks who asks.

A page of another site can send requests to 127.0.0.1, under its own Origin, or under its own Host name once
it lets that name point here (DNS rebinding). Both are refused. No method but GET and HEAD is known, and the
pages may load nothing from elsewhere (Content-Security-Policy).
"""

from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = frozenset({"127.0.0.1", "localhost", "::1"})
METHODS = frozenset({"GET", "HEAD"})
LONGEST = 8192  # bytes of a query
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",
}


class Guard:
    """Lets only this machine's own pages through, reading only, and marks every answer."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer or refuse one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        refused = _refused(scope)
        await (self.app if refused is None else refused)(scope, receive, marked)


def _refused(scope: Scope) -> PlainTextResponse | None:
    headers = Headers(scope=scope)
    if _name(f"//{headers.get('host', '')}") not in LOOPBACK:
        return PlainTextResponse("The Host header names another machine.", 403)
    origin = headers.get("origin")
    if origin is not None and urlsplit(origin).netloc != headers["host"]:
        return PlainTextResponse("The Origin header names another site.", 403)
    if scope["method"] not in METHODS:
        return PlainTextResponse("The explorer only reads.", 405, {"allow": "GET, HEAD"})
    if len(scope["query_string"]) > LONGEST:
        return PlainTextResponse(f"The query is longer than {LONGEST} bytes.", 414)
    return None


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:  # no address
        return None
