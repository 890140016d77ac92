"""The pictures of the ledger: experiment id -> a drawing of its row. Nothing is computed here."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from stopgrad.experiments.ledger import Row
from stopgrad.experiments.page import measures
from stopgrad.experiments.page.figures import arms, halvagal2023, phase, raft2021, tian2021, zhang2022

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

MOST_PANELS = 3


FIGURES: "dict[str, Callable[[Row], Figure]]" = {
    name: drawing
    for of in (tian2021, halvagal2023, raft2021, zhang2022, phase)
    for name, drawing in of.FIGURES.items()
}


def draw(row: Row) -> "Figure | None":
    """An experiment's picture: its own, or arms against measures for one that is trained; else None."""
    if row.experiment.id in FIGURES:
        return FIGURES[row.experiment.id](row)
    if row.experiment.kind == "exact":
        return None
    read = [name for name in measures.read_by(row.experiment.rule) if not measures.is_event(name)]
    return arms.draw(row, list(dict.fromkeys(["linear_probe", "z.std", *read]))[:MOST_PANELS])
