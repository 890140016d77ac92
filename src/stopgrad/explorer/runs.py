"""The given runs: which there are, the parts of one's report, and its rows as they come.

A run is known by the name of its folder, which was resolved when the server started; no request names a path.
A file of it that has become a link out of the folder is not followed.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from stopgrad.errors import UsageError
from stopgrad.explorer.imports import before_drawing

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from stopgrad.report.run_files import RunFiles

READ = ("metrics.jsonl", "summary.json", "config.yaml", "evaluation.npz")
"""What is read of a run's folder."""
LARGEST = 2 * 1024**3
"""Bytes of one of these files that are read at most."""
EVERY = 0.5
"""Seconds between two looks at a run that goes on."""


@dataclass
class Run:
    """One run folder.

    Attributes:
        name: in addresses.
        path: of the folder, resolved.
    """

    name: str
    path: Path
    _lock: Lock = field(default_factory=Lock, repr=False)
    _judging: Lock = field(default_factory=Lock, repr=False)  # two pages that ask at once have one made
    _state: tuple[tuple[int, int], ...] | None = field(default=None, repr=False)
    _files: "RunFiles | None" = field(default=None, repr=False)
    _report: "tuple[RunFiles, dict[str, Any]] | None" = field(default=None, repr=False)
    _map: "tuple[RunFiles, str] | None" = field(default=None, repr=False)

    def state(self) -> tuple[tuple[int, int], ...]:
        """Size and time of change of the files, zeros of those that are not there.

        Raises:
            UsageError: if one of them leads out of the folder, or is too large to be shown.
        """
        return tuple(_state(self.path, name) for name in READ)

    def files(self) -> "RunFiles":
        """What there is now; read again only if a file has changed.

        Raises:
            UsageError: if a file is damaged, leads out of the folder or is too large.
        """
        from stopgrad.report.run_files import read_run

        with self._lock:
            state = self.state()
            if self._files is None or state != self._state:
                self._files, self._state = read_run(self.path), state
            return self._files

    def describe(self) -> dict[str, Any]:
        """The run in a line: what a list of runs says of it."""
        try:
            run = self.files()
        except UsageError as error:
            return {"name": self.name, "problem": str(error)}
        last = run.epochs[-1] if run.epochs else {}
        keys = ("method", "data", "seed", "verdict", "knn", "linear_probe")
        return {
            "name": self.name,
            **{key: run.summary.get(key) for key in keys},
            "epoch": last.get("epoch"),
            "ended": bool(run.summary),
        }

    def report(self) -> dict[str, Any]:
        """The parts of the run's report, as `report.html` has them, but for the map of an evaluated run."""
        with self._judging:
            run = self.files()
            if self._report is None or self._report[0] is not run:  # a file has changed
                self._report = run, self._made(run)
            return self._report[1]

    def outline(self) -> dict[str, Any]:
        """The report as far as the files alone tell; all of it where it has been made."""
        before_drawing()
        from stopgrad.report import html

        run = self.files()
        if self._report is not None and self._report[0] is run:
            return self._report[1]
        return {**self._sent(run, *html.outline(run)), "whole": False}

    def embedding_map(self) -> str:
        """The map of the embedding as HTML: apart, since it takes longer than all the rest."""
        before_drawing()
        from stopgrad.report import html

        run = self.files()
        if self._map is None or self._map[0] is not run:
            self._map = run, html.embedding_map(run.evaluation)
        return self._map[1]

    def _made(self, run: "RunFiles") -> dict[str, Any]:
        before_drawing()
        from stopgrad.postmortem.diagnose import diagnose_run
        from stopgrad.postmortem.eigenvalues import eigenvalues
        from stopgrad.report import html, sections

        coming = sections.note("The map is being computed.")
        drawn_map = html.embedding_map(None) if run.evaluation is None else coming
        course = eigenvalues(run)
        try:
            found = diagnose_run(self.path)
            header, parts = html.parts(run, drawn_map, found.diagnosis, found.series, course)
        except UsageError:  # nothing has been read in it yet
            header, parts = html.parts(run, drawn_map, eigenvalues=course)
        return self._sent(run, header, parts)

    def _sent(self, run: "RunFiles", header: str, parts: Sequence[str]) -> dict[str, Any]:
        return {
            "name": self.name,
            "header": header,
            "sections": list(parts),
            "evaluated": run.evaluation is not None,
            "ended": bool(run.summary),
            "whole": True,
        }

    async def events(self, ending: Callable[[], bool]) -> AsyncIterator[str]:
        """A server-sent event now, and whenever a file has changed, until the server is ``ending``."""
        seen = None
        while not ending():
            try:
                state = self.state()
            except UsageError:
                return
            if state != seen:
                seen = state
                yield f"data: {json.dumps({'bytes': state[0][0]})}\n\n"
            await asyncio.sleep(EVERY)


def named(paths: Sequence[Path]) -> dict[str, Run]:
    """Runs by name, the folder's own; of folders with one name, later ones get a number."""
    runs: dict[str, Run] = {}
    for path in paths:
        whole = path.resolve()
        name, count = whole.name, 2
        while name in runs:
            name, count = f"{whole.name}-{count}", count + 1
        runs[name] = Run(name, whole)
    return runs


def compared(runs: Sequence[Run], measure: str) -> "Figure":
    """One measure of several runs over their epochs, as a figure."""
    before_drawing()
    from stopgrad.report import figures

    return figures.comparison({run.name: run.files().epochs for run in runs}, measure)


def _state(folder: Path, name: str) -> tuple[int, int]:
    path = folder / name
    if not path.exists():
        return 0, 0
    if not path.resolve().is_relative_to(folder):
        raise UsageError(f"{path}: leads out of the run's folder")
    found = path.stat()
    if found.st_size > LARGEST:
        raise UsageError(f"{path}: has {found.st_size / 1024**3:.1f} GiB, more than can be shown")
    return found.st_size, found.st_mtime_ns
