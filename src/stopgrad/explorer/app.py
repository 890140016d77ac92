"""The explorer's server: one page, its files, and what it asks for. All of it is read only.

/                         the page, also under the addresses of its views, so that each is a permalink
/static/...               its script and style, and plotly's bundled script
/api/views                the views of the theory and their controls
/api/views/NAME?...       the pictures of one, for these values of the controls
.../trained?...           what the ledger holds of networks trained over the same axes
/api/runs, /api/runs/N    the given runs, and the parts of one's report
/api/runs/N/outline       the same without what takes long to compute
/api/runs/N/map           the map of its embedding
/api/runs/N/events        server-sent events: how many rows there are, whenever that changes
/api/compare?...          one measure of several runs
/api/ledger, .../ID       the claims, and one of them
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, HTTPException, Query
from fastapi.responses import FileResponse, JSONResponse, Response, StreamingResponse
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.staticfiles import StaticFiles

from stopgrad.errors import UsageError
from stopgrad.explorer.claims import Claims
from stopgrad.explorer.guard import Guard
from stopgrad.explorer.imports import ALL, RUNS, import_all
from stopgrad.explorer.runs import Run, compared, named
from stopgrad.explorer.views import VIEWS, View
from stopgrad.explorer.waiting import while_waited_for

MOST = 20  # runs in one picture
NOT_GIVEN: dict[int | str, dict[str, Any]] = {404: {"description": "There is none of this name."}}
PAGES = ("dynamics", "runs", "ledger")
STATIC = Path(str(resources.files("stopgrad.explorer").joinpath("static")))
FIRST = STATIC / "first" / "mode.json"
"""What the first page shows, kept: to compute it, torch has to be imported, which takes longer than all else.
`python -m stopgrad.explorer.pictures` makes it anew."""


def create_app(runs: Sequence[Path], store: Path) -> FastAPI:
    """The server's application.

    Args:
        runs: run folders, which are all that it reads besides the ledger.
        store: folder of the ledger's finished trials.
    """
    app = FastAPI(title="stopgrad explorer", docs_url=None, redoc_url=None)
    app.state.ending = lambda: False  # whether the server has been told to stop
    app.add_middleware(Guard)
    app.add_exception_handler(UsageError, _refused)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    known = named(runs)
    app.include_router(_pages(known))
    claims = Claims(store)
    app.include_router(_theory(claims), prefix="/api")
    app.include_router(_runs(known), prefix="/api")
    app.include_router(_claims(claims), prefix="/api")
    return app


def _refused(request: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 422)


def _pages(runs: Mapping[str, Run]) -> APIRouter:
    router = APIRouter(include_in_schema=False)

    def page(request: Request) -> FileResponse:
        if request.url.path.startswith("/runs"):
            task = BackgroundTask(_ready, RUNS, runs.get(request.path_params.get("item", "")))
        else:
            task = BackgroundTask(_ready, ALL)
        return FileResponse(STATIC / "index.html", background=task)

    def shared(name: str) -> FileResponse:
        # by way of the package at the top: to import that of the reports takes longer than all else
        return FileResponse(Path(str(resources.files("stopgrad").joinpath("report", name))))

    for path in ("/", *(f"/{name}{rest}" for name in PAGES for rest in ("", "/{item}"))):
        router.add_api_route(path, page, methods=["GET", "HEAD"])
    for name in ("page.css", "theme.js", "plotly-cartesian.min.js"):
        router.add_api_route(f"/{name}", partial(shared, name), methods=["GET"])
    return router


def _theory(claims: Claims) -> APIRouter:
    router = APIRouter(tags=["theory"])

    def views() -> list[dict[str, Any]]:
        """The views of the theory, in order, and their controls."""
        return [_described(view) for view in VIEWS.values()]

    router.add_api_route("/views", views, methods=["GET"])
    for view in VIEWS.values():
        address = f"/views/{view.name}"
        router.add_api_route(address, _pictures(view), methods=["GET"], summary=view.title)
        if view.trained:
            about = f"{view.title}: trained networks"
            router.add_api_route(f"{address}/trained", _trained(view, claims), methods=["GET"], summary=about)
    return router


def _runs(runs: Mapping[str, Run]) -> APIRouter:
    router = APIRouter(tags=["runs"])

    def known(name: str) -> Run:
        if name not in runs:
            raise HTTPException(404, f"no run '{name}' was given")
        return runs[name]

    @router.get("/runs")
    def every() -> dict[str, Any]:
        """The runs in a line each, and the measures to compare them by."""
        from stopgrad.report.figures import COMPARED

        return {"runs": [run.describe() for run in runs.values()], "measures": COMPARED}

    @router.get("/runs/{name}", responses=NOT_GIVEN)
    def one(name: str) -> dict[str, Any]:
        """The parts of a run's report, as HTML with the data of its plots inside."""
        return known(name).report()

    @router.get("/runs/{name}/outline", responses=NOT_GIVEN)
    def outline(name: str) -> dict[str, Any]:
        """The parts of a run's report without what takes long to compute, unless it has been computed."""
        return known(name).outline()

    @router.get("/runs/{name}/map", responses=NOT_GIVEN)
    def embedding_map(name: str) -> str:
        """The map of a run's embedding, as HTML with the data of its plot inside."""
        return known(name).embedding_map()

    @router.get("/runs/{name}/events", responses=NOT_GIVEN)
    def events(name: str, request: Request) -> StreamingResponse:
        """Server-sent events: one now, and one whenever a file of the run has changed."""
        rows = known(name).events(request.app.state.ending)
        return StreamingResponse(rows, media_type="text/event-stream")

    @router.get("/compare", responses=NOT_GIVEN)
    def compare(run: Annotated[list[str], Query(min_length=1, max_length=MOST)], measure: str) -> Response:
        """One measure of several runs over their epochs."""
        from stopgrad.explorer.pictures import shown

        return JSONResponse(shown(compared([known(name) for name in run], measure)))

    return router


def _claims(claims: Claims) -> APIRouter:
    router = APIRouter(tags=["ledger"])

    @router.get("/ledger")
    def every() -> list[dict[str, Any]]:
        """The claims in a line each."""
        return claims.every()

    @router.get("/ledger/{name}", responses=NOT_GIVEN)
    def one(name: str) -> dict[str, Any]:
        """A claim as the ledger's page has it, as HTML with the data of its plots inside."""
        if name not in claims.rows:
            raise HTTPException(404, f"no claim '{name}'")
        return claims.one(name)

    return router


def _pictures(view: View) -> Any:
    model: Any = view.query

    first = model().model_dump() if view.name == FIRST.stem else None

    async def pictures(query: Annotated[model, Query()], request: Request) -> Response:
        values: BaseModel = query
        if values.model_dump() == first:
            return FileResponse(FIRST, media_type="application/json")
        # in a thread, the import too
        found = await while_waited_for(request, partial(_draw, view, values.model_dump()))
        return JSONResponse(found)

    return pictures


def _draw(view: View, values: dict[str, Any], unwanted: Callable[[], bool]) -> dict[str, Any] | None:
    from stopgrad.explorer.pictures import drawn

    return drawn(view, values, unwanted)


def _ready(modules: Sequence[str], run: Run | None = None) -> None:
    """Import what a page is going to need, and read its run, while the browser gets ready to draw."""
    import_all(modules)
    if run is not None:
        with suppress(UsageError):  # said to the page when it asks for the run
            run.files()


def _trained(view: View, claims: Claims) -> Any:
    model: Any = view.query

    def trained(query: Annotated[model, Query()]) -> Response:
        values: BaseModel = query
        found = [claims.picture(name) for name in view.claims(values.model_dump())]
        return JSONResponse({"pictures": [picture for picture in found if picture is not None]})

    return trained


def _described(view: View) -> dict[str, Any]:
    controls = [{"kind": type(control).__name__.lower(), **vars(control)} for control in view.controls]
    return {
        "name": view.name, "tab": view.tab, "title": view.title, "about": view.about, "click": view.click,
        "slow": view.slow, "slow_without": view.slow_without, "says": view.says, "apart": view.apart,
        "controls": controls, "trained": bool(view.trained),
    }  # fmt: skip
