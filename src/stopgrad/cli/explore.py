"""Command that opens the explorer."""

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer()

STORE = Path("results/ledger")
PORT = 8474


@app.command()
def explore(
    runs: Annotated[
        list[Path] | None, typer.Argument(help="Run folders, or folders of them; by default those in runs/.")
    ] = None,
    store: Annotated[Path, typer.Option("--store", help="Folder of the ledger's finished trials.")] = STORE,
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = PORT,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open the page.")] = True,
) -> None:
    """See the theory, your runs and the ledger in the browser, on this machine alone."""
    from stopgrad.explorer.serve import serve

    serve(_found(runs), store, port, open_browser=browser)


def _found(given: list[Path] | None) -> list[Path]:
    """Run folders, and those right below folders that are none."""
    from stopgrad.errors import UsageError

    found = []
    for path in given or [Path("runs")]:
        inside = [path] if _is_run(path) else sorted(child for child in path.glob("*") if _is_run(child))
        if given and not inside:
            raise UsageError(f"{path}: neither a run folder (no metrics.jsonl in it) nor a folder of them")
        found += inside
    return found


def _is_run(path: Path) -> bool:
    return (path / "metrics.jsonl").is_file()
