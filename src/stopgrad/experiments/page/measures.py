"""How measures are named, ordered and rounded on the ledger's pages, and which of them a rule reads."""

from collections.abc import Iterator

from stopgrad.experiments.rules import (
    All,
    Always,
    Collapses,
    Greater,
    Indistinguishable,
    Pooled,
    Rule,
    Survives,
    Under,
    Within,
)
from stopgrad.experiments.statistics import Summary

ACCURACIES = {
    "linear_probe": "linear probe",
    "linear_probe_raw": "linear probe, raw features",
    "linear_probe_20": "linear probe, 20 labels a class",
    "linear_probe_20_raw": "linear probe, raw features, 20 labels a class",
    "knn": "kNN",
}
"""Shares of test images, shown in per cent."""
EVENTS = ("collapsed", "healthy")
"""Of a node, 0 or 1 in a trial, shown as the number of trials; so is ``diverged``."""
OF_NODE = {
    "std": "std of {}",
    "effective_rank": "effective rank of {}",
    "uniformity": "uniformity of {}",
    "alignment": "alignment of {}",
    "m_o": "m_o of {}",
    "m_r": "m_r of {}",
    "collapsed": "{} collapsed",
    "healthy": "{} healthy",
}
NODES = {"z": "z", "p": "p", "z_train": "z (train BN)", "p_train": "p (train BN)"}
ALWAYS_SHOWN = ("linear_probe", "z.std", "z.effective_rank")
"""Of every trained experiment, whatever its rule reads."""


def label(measure: str) -> str:
    """A measure's name in words: ``z.std`` is "std of z"; one without a name of its own keeps the code's."""
    node, _, name = measure.rpartition(".")
    if node in NODES and name in OF_NODE:
        return OF_NODE[name].format(NODES[node])
    return ACCURACIES.get(measure, measure)


def is_event(measure: str) -> bool:
    """Whether a trial has 0 or 1 of it."""
    node, _, name = measure.rpartition(".")
    return measure == "diverged" or (node in NODES and name in EVENTS)


def number(measure: str, value: float) -> str:
    """One value: an accuracy in per cent with one decimal, all else with three significant digits."""
    if measure in ACCURACIES:
        return f"{100 * value:.1f} %"
    return f"{value:.3g}"


def spread(measure: str, found: Summary) -> str:
    """Mean and deviation, or the number of trials in which an event took place."""
    if is_event(measure):
        return f"{round(found.n * found.mean)} of {found.n}"
    if found.n == 1:
        return number(measure, found.mean)
    if measure in ACCURACIES:
        return f"{100 * found.mean:.1f} ± {100 * found.std:.1f} %"
    return f"{found.mean:.3g} ± {found.std:.2g}"


def read_by(rule: Rule) -> tuple[str, ...]:
    """The measures that a rule reads, each once, in its order."""
    return tuple(dict.fromkeys(_read(rule)))


def _read(rule: Rule) -> Iterator[str]:
    match rule:
        case Greater() | Indistinguishable() | Within() | Always() | Pooled():
            yield rule.measure
        case Collapses():
            yield f"{rule.node}.collapsed"
        case Survives():
            yield f"{rule.node}.healthy"
        case All():
            for part in rule.rules:
                yield from _read(part)
        case Under():
            yield from _read(rule.general)
            yield from _read(rule.conditional)
