"""DirectPred: the predictor is set from the spectrum of E[z z^T], and is not learned."""

import numpy as np
import torch

from stopgrad.parts.gradient import Exact
from stopgrad.parts.predictors import Spectral
from stopgrad.theory.predict.answers import Beyond
from stopgrad.theory.predict.case import Case, Setting, State
from stopgrad.theory.predict.unstopped import Unstopped

# Factors of e by which a mode of DirectPred has fallen for good
FALLEN = 100.0


class DirectPred(Case):
    """DirectPred; its modes act on each other through the largest."""

    fallback = "eta"
    coupled = True

    def __init__(self, setting: Setting):
        super().__init__(setting)
        rule = setting.method.predictor
        assert isinstance(rule, Spectral)
        self.rule = rule
        self.power = 1 if isinstance(setting.method.gradient, Exact) else 0
        if not setting.stops:
            self.note, self.fallback, self.parts = Unstopped.note, "stop_gradient", Unstopped.parts
        elif rule.eps_form == "code":
            self.note = (
                "DirectPred as the authors' code has it: the largest mode has the same p at any size, and "
                "the Euclidean distance shrinks it at p (p l_s - l_d) + eta (derived here from tian2021, "
                "Algorithm 1); a distance that normalises lengths does not feel it."
            )
            self.fallback, self.parts = "eps_form", (("eps_form", "text"),)
        else:
            ends = "l_s p^2 - l_d p + eta = 0" if self.power else "p = (l_d - eta) / l_s"
            self.note = (
                f"DirectPred as the text has it (tian2021, section 4): fixed points at {ends}; the one that "
                "is reached was found by integration."
            )
            self.numbers = ("eta", "s0")

    @property
    def rate(self) -> float | None:
        """Theorem 2's; with stop-gradient there is none."""
        x = self.x
        return None if x.stops else float((x.l_s - np.abs(x.l_d)).min() + x.eta)

    def eigenvalues(self, w: np.ndarray) -> np.ndarray:
        """The rule's, of f = l_s w^2. (..., n)"""
        return self.rule.eigenvalues(torch.from_numpy(self.x.l_s * w**2)).numpy()

    def certain(self) -> bool:
        """Whether a theorem says that every mode dies.

        Raises:
            Beyond: where there is none, and no fixed points either.
        """
        x = self.x
        if self.rate is not None:
            if self.rate > 0:
                return True
            raise Beyond("target: without stop-gradient, noise and weight decay DirectPred has no known end")
        if self.rule.eps_form == "text":
            return False
        top = float(self.rule.eigenvalues(torch.ones(1, dtype=torch.float64)))
        if (top**self.power * (top * x.l_s - np.abs(x.l_d)) + x.eta > 0).all():
            return True
        raise Beyond(
            f"predictor: its largest eigenvalue is {top:g} at any size, so that a mode with l_d / l_s above "
            "it may grow without end; modes have no fixed points then"
        )

    def settled(self) -> State:
        """Where modes rest; those that do not have fallen by any factor. (..., n)"""
        _, path = self.course(lambda now: bool((np.abs(now.w) < np.exp(-FALLEN) * self.w0).all()), looks=2)
        return State(*(row[-1] for row in path))

    def survivors(self) -> np.ndarray:
        """By the theorem where there is one, else by where integration ends. (..., n)"""
        if self.certain():
            return np.zeros(self.shape, dtype=bool)
        return np.asarray((np.abs(self.settled().w) > np.exp(-FALLEN) * self.w0) & ~self.swings)

    def ends(self, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where integration ends. (n,) each"""
        end = self.settled()
        return end.p, np.where(alive, end.w**2, 0.0)
