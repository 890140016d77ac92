"""Runs and experiments to predict, for the tests."""

from stopgrad.experiments.rules import Always
from stopgrad.experiments.schema import DIGITS, Arm, Experiment
from stopgrad.training.settings import merge, resolve


def run(method="byol-lp", **changes):
    return resolve(merge(DIGITS, {"method": method, "seed": 1, **changes}))


def experiment(*arms):
    return Experiment(
        id="tian2021-example", paper="tian2021", section="1", title="t", claim="c", arms=arms, base=DIGITS,
        seeds=(1, 2), rule=Always(arms[0].name, "linear_probe", low=0),
    )  # fmt: skip


NONE, LEARNED, RAFT = (Arm(name, {"method": name}) for name in ("byol-np", "byol-lp", "raft"))
