"""The pictures of a run: plain rows or arrays in, a plotly Figure out. Nothing is measured or read here.

A row is one line of `metrics.jsonl`. A series without one finite value is left out, so a figure whose `data`
is empty has nothing to show. Backgrounds are transparent and text takes the page's colour, so a figure fits a
light and a dark page. Names of files and classes are escaped: plotly reads some HTML in its texts.

- `curves`: what training measured, over epochs
- `comparison`: one of these of several runs
- `spectra`: the eigenvalues of a covariance
- `eigenvalues`: those of a linear predictor and of the correlation it sees, beside theory's
- `evidence`: the course of what a verdict rests on, a panel (`evidence_panel`, `value_axis`) for each measure
- `bars`: measures against their thresholds, where there is no course
- `embedding`: the map of the embedding
- `rows`, `style`: what the pictures share
"""

from stopgrad.report.figures.bars import threshold_bars
from stopgrad.report.figures.comparison import COMPARED, comparison
from stopgrad.report.figures.curves import (
    MEASURES,
    NODES,
    accuracy,
    decomposition,
    learning_rate,
    loss,
    measure,
    throughput,
)
from stopgrad.report.figures.eigenvalues import Eigenvalues, eigenvalues
from stopgrad.report.figures.embedding import embedding_map
from stopgrad.report.figures.evidence import evidence_figure
from stopgrad.report.figures.rows import as_number
from stopgrad.report.figures.spectra import cumulative_spectrum, spectrum

__all__ = [
    "COMPARED",
    "MEASURES",
    "NODES",
    "Eigenvalues",
    "accuracy",
    "as_number",
    "comparison",
    "cumulative_spectrum",
    "decomposition",
    "eigenvalues",
    "embedding_map",
    "evidence_figure",
    "learning_rate",
    "loss",
    "measure",
    "spectrum",
    "threshold_bars",
    "throughput",
]
