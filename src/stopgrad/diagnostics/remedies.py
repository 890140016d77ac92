"""Causes of a failure in the terms of the theory, and what to change, the most promising first."""

from collections.abc import Mapping, Sequence
from typing import Any

from stopgrad.diagnostics.diagnosis import Fix, Reading, Verdict

TIAN = "Tian et al. 2021"
ZHANG = "Zhang et al. 2022"
CHEN = "Chen and He 2021"

NO_STOP_GRADIENT = "no stop-gradient: every mode of the linear model decays (Tian et al. 2021, Theorem 2)"
NO_PREDICTOR = "no predictor: W' = -W (X' + eta I), the weights shrink to 0 (Tian et al. 2021, section 2)"
WEIGHT_DECAY = (
    "weight decay above tau^2 / (4 (1 + sigma^2)): no fixed point but 0 (Tian et al. 2021, section 3)"
)
SYMMETRIC = "a symmetric linear predictor without an EMA target (Tian et al. 2021, Table 3)"
SLOW = "the predictor learns more slowly than the encoder (Tian et al. 2021, section 3, alpha_p)"

STOP = Fix(
    "stop the gradient into the target", "two views no longer agree by shrinking", f"{CHEN}, section 4.1"
)
PREDICTOR = Fix(
    "put a predictor on the online side, linear or an MLP",
    "the modes get a fixed point away from 0",
    f"{TIAN}, section 3; {CHEN}, section 4.2",
)
DIRECTPRED = Fix(
    "use DirectPred (`sg.DirectPred(dim)`), eps 0.1, and an EMA target",
    "the predictor follows the correlation of z at once, small modes are lifted",
    f"{TIAN}, section 4",
)
EMA = Fix(
    "use an EMA target, tau 0.99 to 0.996",
    "the target moves more slowly than the encoder",
    f"{TIAN}, section 3",
)
FASTER = Fix(
    "raise the predictor's learning rate tenfold, at a constant rate",
    "the predictor keeps near its optimum while the encoder moves",
    f"{TIAN}, Figure 6; {CHEN}, section 4.2",
)
LESS_DECAY = Fix(
    "lower the weight decay below tau^2 / (4 (1 + sigma^2)), as to 4e-4",
    "a fixed point away from 0 exists again",
    f"{TIAN}, section 3",
)
SOME_DECAY = Fix(
    "use a weight decay of 1e-4 to 1e-3",
    "the predictor's eigenspace aligns with the correlation of z",
    f"{TIAN}, section 3, Table 2",
)
LAST_BN = Fix(
    "end the projector in batch normalisation without affine parameters",
    "the centre is taken away from raw z",
    f"{CHEN}, section 4.4; {ZHANG}, section 4",
)
LOWER_LR = Fix(
    "divide the learning rate by 3 and warm up over some epochs",
    "steps stay within stability",
    f"{CHEN}, section 4",
)
CLIP = Fix("clip the gradient's norm at 1", "single batches cannot throw the weights far", "general practice")
FULL = Fix(
    "compute norms and losses in float32", "squares of half precision overflow at 256", "general practice"
)
DETACH = Fix(
    "detach the target's output, or compute it under torch.no_grad()",
    "the target becomes a constant for the gradient",
    f"{CHEN}, section 4.1; {TIAN}, Theorem 2",
)
MOVING = Fix(
    "update the EMA target after every optimiser step, with tau below 1",
    "the target follows what the encoder learns",
    "Grill et al. 2020, section 3.1",
)
OTHER_VIEW = Fix(
    "compare the prediction with the projection of the other view, not with its prediction",
    "encoder and predictor are no longer one naive Siamese network",
    f"{ZHANG}, section 2.3",
)

FIXES: dict[str, tuple[Fix, ...]] = {
    "complete-collapse": (STOP, PREDICTOR, DIRECTPRED, EMA, FASTER, LESS_DECAY),
    "dimensional-collapse": (DIRECTPRED, PREDICTOR, STOP, FASTER, LAST_BN, LOWER_LR, SOME_DECAY),
    "predictor-collapse": (OTHER_VIEW, DIRECTPRED),
    "diverged": (LOWER_LR, CLIP, FULL),
    "nan-ahead": (LOWER_LR, FULL, CLIP, SOME_DECAY),
    "frozen-target": (MOVING,),
    "target-leak": (DETACH,),
    "identical-views": (
        Fix(
            "draw the augmentations anew for each view",
            "there is something to be invariant to",
            f"{TIAN}, section 2: sigma^2 = 0 leaves nothing to learn",
        ),
    ),
    "normalisation-leak": (
        Fix(
            "raise the momentum of batch normalisation, or freeze fewer of its statistics",
            "evaluation sees what training saw",
            "general practice",
        ),
        Fix("shuffle the batches, and use SyncBatchNorm over ranks",
            "a batch's statistics say less of its images", "general practice"),
    ),
    "dead-projector": (
        LOWER_LR,
        Fix("end the projector without a ReLU, and check its weights' initialisation",
            "gradients reach it again", "general practice"),
    ),
    "constant-loss": (
        Fix("check that the optimiser holds the encoder's parameters, and that the learning rate is above 0",
            "the weights move", "general practice"),
    ),
}  # fmt: skip

FIRST = {
    NO_STOP_GRADIENT: STOP,
    NO_PREDICTOR: PREDICTOR,
    WEIGHT_DECAY: LESS_DECAY,
    SYMMETRIC: EMA,
    SLOW: FASTER,
}


def cause_of(verdict: Verdict, facts: Mapping[str, Any], readings: Sequence[Reading]) -> str | None:
    """Why, as far as the facts tell; None where they leave several causes open."""
    if verdict == "target-leak":
        return NO_STOP_GRADIENT
    if verdict not in ("complete-collapse", "dimensional-collapse"):
        return None
    if facts.get("stops_gradient") is False:
        return NO_STOP_GRADIENT
    if facts.get("predictor") == "identity":
        return NO_PREDICTOR
    if _decays_too_fast(facts, readings):
        return WEIGHT_DECAY
    if facts.get("symmetric") and facts.get("ema") is None:
        return SYMMETRIC
    if facts.get("lr_scale", 1.0) < 0.3:
        return SLOW
    return None


def _decays_too_fast(facts: Mapping[str, Any], readings: Sequence[Reading]) -> bool:
    """Whether eta exceeds tau^2 / (4 (1 + sigma^2)), tau 1 where it is not known.

    sigma^2 as the first reading measured it on the views, or as the facts have it; 0 where neither knows it,
    above which no eta is small enough.
    """
    eta = facts.get("weight_decay")
    if eta is None:
        return False
    sigma2 = readings[0].scalars.get("sigma2", facts.get("sigma2", 0.0)) if readings else 0.0
    return bool(eta > facts.get("tau", 1.0) ** 2 / (4 * (1 + sigma2)))


def fixes_for(verdict: Verdict, cause: str | None) -> tuple[Fix, ...]:
    """What to change; what the cause asks for comes first."""
    fixes = FIXES.get(verdict, ())
    first = FIRST.get(cause or "")
    return (
        fixes
        if first is None or verdict == "target-leak"
        else (first, *(fix for fix in fixes if fix != first))
    )
