"""The ledger's experiments, a module or a package for each paper: literals only."""

from stopgrad.experiments.papers import halvagal2023, raft2021, tian2021, zhang2022
from stopgrad.experiments.schema import Experiment

EXPERIMENTS: dict[str, Experiment] = {
    experiment.id: experiment
    for paper in (halvagal2023, raft2021, tian2021, zhang2022)
    for experiment in paper.EXPERIMENTS
}
