"""The ledger: every claim with its verdict, and one of them as the ledger's page has it."""

from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

from stopgrad.errors import UsageError
from stopgrad.explorer.imports import before_drawing

if TYPE_CHECKING:
    from stopgrad.experiments.ledger import Row


class Claims:
    """The ledger of a store, read once, when it is first asked for.

    Args:
        store: folder of finished trials.
    """

    def __init__(self, store: Path) -> None:
        self.store = store
        self._lock = Lock()

    def every(self) -> list[dict[str, Any]]:
        """The claims in a line each."""
        from stopgrad.experiments.page import html, tables

        return [
            {
                "id": row.experiment.id,
                "paper": tables.NAMES[row.experiment.paper],
                "title": row.experiment.title,
                "section": row.experiment.section,
                "verdict": tables.outcome(row),
                "tone": html.TONES.get(tables.outcome(row), "none"),
                "why": tables.why(row),
                "seeds": tables.seeds(row),
            }
            for row in self.rows.values()
        ]

    def one(self, name: str) -> dict[str, Any]:
        """A claim with its numbers and picture as HTML, and the command that makes it."""
        before_drawing()
        from stopgrad.experiments.page import html

        return {"id": name, "html": html.experiment(self.rows[name]), "command": f"stopgrad reproduce {name}"}

    def picture(self, name: str) -> dict[str, Any] | None:
        """A claim's picture as the page draws it; None if nothing of it was run."""
        if not self.store.is_dir() or not any(self.rows[name].records.values()):
            return None
        before_drawing()
        from stopgrad.experiments.page import figures
        from stopgrad.explorer.pictures import shown

        figure = figures.draw(self.rows[name])
        return None if figure is None else {"name": name, **shown(figure)}

    @property
    def rows(self) -> "dict[str, Row]":
        """Claims by name.

        Raises:
            UsageError: if the store cannot be read.
        """
        with self._lock:
            return self._read

    @cached_property
    def _read(self) -> "dict[str, Row]":
        if not self.store.is_dir():
            raise UsageError(f"{self.store}: no ledger here; `stopgrad reproduce all` makes one")
        from stopgrad.experiments.page.__main__ import read

        return {row.experiment.id: row for row in read(self.store)}
