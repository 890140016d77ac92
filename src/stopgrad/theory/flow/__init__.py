"""Gradient flow of the two-layer linear model (tian2021, section 2 and appendix A).

An encoder W, a predictor W_p and a target W_a see two views x1, x2 of an image. With X = E[x1 x2^T] and
X' = E[x1 x1^T] - X, the loss J = 1/2 E || W_p W x1 - sg(W_a x2) ||^2 and weight decay, its gradient flow is

    W_p' = alpha_p (W_a X - W_p W (X + X')) W^T - eta_p W_p
    W'   = W_p^T (W_a X - W_p W (X + X')) - eta W
    W_a' = beta (W - W_a)        or W_a = W (SimSiam)

Averaging the loss over both orders of the views changes nothing. Without stop-gradient (W_a = W) the target
too receives a gradient, which adds W_p W X - W (X + X') to W'.

Two conventions for the predictor's weight decay. In the theory both layers decay at the same rate,
eta_p = eta (the default). A parameter group with alpha_p times the learning rate and the same
``weight_decay`` has eta_p = alpha_p eta instead; Theorem 1 does not hold for it.

Where the paper errs: its Eq. 57 multiplies X' + eta I from the wrong side; without a predictor it reads
W' = -W (X' + eta I). E[f f^T] = W (X + X') W^T is the correlation of the predictor's input, which is
(1 + sigma^2) F, not F = W X W^T, for isotropic data, and no multiple of F in general. Theorem 2 as proved
speaks of X with no negative eigenvalue, which two views of a population always have when they are drawn
independently; a finite sample's X may have some (:mod:`stopgrad.theory.statistics`).

Shapes: X, X' (n1, n1); W, W_a (n2, n1); W_p (n2, n2); N times. All numbers float64.
"""

from stopgrad.theory.flow.config import from_config, run_config
from stopgrad.theory.flow.model import Flow, FlowTrajectory
from stopgrad.theory.flow.theorem2 import theorem2_matrix, theorem2_rate

__all__ = ["Flow", "FlowTrajectory", "from_config", "run_config", "theorem2_matrix", "theorem2_rate"]
