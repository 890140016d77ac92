"""Theory beside practice: what was predicted of every trained arm, and what came of it.

A prediction is the exact trial of :mod:`stopgrad.experiments.counterpart`, whose definitions are in
:mod:`stopgrad.experiments.exact.counterpart`; the outcome is what `stopgrad.diagnostics.judge` says of z on
test images. Here the two are counted. A trial that several experiments share counts once.
"""

from stopgrad.experiments.page.beside.pairs import (
    Collected,
    Pair,
    agreement,
    collect,
    matrix,
    overlap,
    settled,
    spectra,
    target_of,
)
from stopgrad.experiments.page.beside.pictures import spectrum_figure, time_figure
from stopgrad.experiments.page.beside.section import markdown, sections

__all__ = [
    "Collected",
    "Pair",
    "agreement",
    "collect",
    "markdown",
    "matrix",
    "overlap",
    "sections",
    "settled",
    "spectra",
    "spectrum_figure",
    "target_of",
    "time_figure",
]
