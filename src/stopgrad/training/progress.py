"""The progress bar, and the rate that it shows."""

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.progress import Progress as RichProgress


class Progress:
    """A bar on stderr with loss, std, effective rank, images per second and time left.

    Away from a terminal it prints one line per epoch instead; with ``show=False`` nothing.
    """

    def __init__(self, steps: int, done: int = 0, visible: bool = True):
        self._console = Console(stderr=True)
        self._visible, self._lines = visible, visible and not self._console.is_terminal
        self._bar = RichProgress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeRemainingColumn(),
            console=self._console,
            disable=not visible or self._lines,
        )
        self._task: TaskID = self._bar.add_task("pretraining", total=steps, completed=done, figures="")
        self._images, self._since = 0, time.perf_counter()
        self.rate = 0.0

    def __enter__(self) -> "Progress":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, images: int) -> None:
        """One more step, of so many images."""
        self._images += images
        self._bar.advance(self._task)

    def show(self, row: Mapping[str, Any]) -> None:
        """Refresh the figures from a step row, and the rate from the time since the last one."""
        self._bar.update(self._task, figures=_figures(row))

    def measure_rate(self) -> float:
        """Images per second since the last call."""
        now = time.perf_counter()
        self.rate = self._images / max(now - self._since, 1e-9)
        self._images, self._since = 0, now
        return self.rate

    def skip_time(self) -> None:
        """Do not count the time since the last call: it went into evaluation, or into compiling."""
        self._images, self._since = 0, time.perf_counter()

    def note(self, line: str) -> None:
        """A line on stderr that is to be seen whether or not there is a bar."""
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Away from a terminal: a line for the epoch."""
        if self._lines and "z" in row:
            self._console.print(f"epoch {row['epoch']}  {_figures({**row, **row['z']})}", highlight=False)


def _figures(row: Mapping[str, Any]) -> str:
    names = {
        "loss": "loss {:.3f}",
        "std": "std {:.2f}",
        "effective_rank": "rank {:.1f}",
        "knn": "kNN {:.3f}",
        "images_per_second": "{:,.0f} img/s",
    }
    return "  ".join(form.format(row[name]) for name, form in names.items() if row.get(name) is not None)
