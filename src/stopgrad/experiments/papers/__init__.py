"""The ledger's experiments, one file a paper: literals only."""

from stopgrad.experiments.papers import tian2021
from stopgrad.experiments.schema import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.id: experiment for paper in (tian2021,) for experiment in paper.EXPERIMENTS
}
