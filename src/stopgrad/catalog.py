"""The methods by name: each a sentence of parts, with its paper and the projector it was published with.

What a paper trains with (optimiser, schedule, widths, epochs) is its recipe, a name in
`stopgrad.training.recipes`: ``stopgrad pretrain --method NAME --recipe paper``.
"""

from typing import NamedTuple

from stopgrad.errors import unknown
from stopgrad.method import Method, Supervised
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.distances import (
    BarlowTwins,
    CrossEntropy,
    Decorrelation,
    Euclidean,
    InfoNce,
    NtXent,
    SimpleContrastive,
    SquaredL2,
    StandardisedMse,
    Triplet,
    VicReg,
    WhitenedMse,
)
from stopgrad.parts.gradient import Decomposed, StraightThrough, Tangential
from stopgrad.parts.pairing import INVERSE, MIRROR, SYMMETRIC, Pair, raft_pairs
from stopgrad.parts.predictors import (
    Bias,
    Identity,
    Linear,
    Mlp,
    Optimal,
    Partitioned,
    Spectral,
    TanhFc,
    TwoFc,
)
from stopgrad.parts.target import Ema, Expectation, Memory, Same

# The last layer of the projector decides some verdicts, so it is part of the catalogue: the SimSiam family
# ends in batch normalisation without affine parameters, the BYOL family in a plain linear layer.
SIMSIAM_PROJECTOR = ProjectorSettings(final_bn="plain")
BYOL_PROJECTOR = ProjectorSettings(final_bn="none")

simsiam = Method(target=Same(stop_gradient=True), predictor=Mlp())
byol = simsiam.but(target=Ema(tau=0.996))
directpred = byol.but(predictor=Spectral())
byol_prime = byol.but(pairing=raft_pairs(1, -1), distance=SquaredL2())
raft = byol_prime.but(pairing=raft_pairs(1, 1))
bare = simsiam.but(predictor=Identity())
# both views on an equal footing, each a constant for nothing
batch_loss = bare.but(target=Same(stop_gradient=False), pairing=(Pair(query="z1", key="z2", weight=1),))


class Entry(NamedTuple):
    """One row of the catalogue; ``recipe`` names its paper's, "auto" where it has none of its own."""

    name: str
    method: Method | Supervised
    projector: ProjectorSettings
    title: str
    paper: str
    section: str
    cite: str
    recipe: str


def _simsiam(name: str, method: Method, title: str, section: str) -> Entry:
    return Entry(
        name, method, SIMSIAM_PROJECTOR, title, "Chen and He 2021", section, "chen2021simsiam", "simsiam"
    )


def _analysis(name: str, method: Method, title: str, section: str) -> Entry:
    return Entry(
        name, method, SIMSIAM_PROJECTOR, title, "Zhang et al. 2022", section, "zhang2022simsiam", "zhang2022"
    )


def _directpred(name: str, method: Method, title: str, section: str) -> Entry:
    return Entry(
        name, method, BYOL_PROJECTOR, title, "Tian et al. 2021", section, "tian2021directpred", "directpred"
    )


def _raft(name: str, method: Method, title: str, section: str) -> Entry:
    return Entry(name, method, BYOL_PROJECTOR, title, "Shi et al. 2020", section, "shi2020raft", "raft")


def _isoloss(name: str, method: Method, title: str, section: str) -> Entry:
    return Entry(
        name, method, BYOL_PROJECTOR, title, "Halvagal et al. 2023", section, "halvagal2023isoloss", "isoloss"
    )


def _baseline(name: str, method: Method, title: str, paper: str, section: str, cite: str) -> Entry:
    return Entry(name, method, BYOL_PROJECTOR, title, paper, section, cite, name)


CATALOG: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        _simsiam("simsiam", simsiam, "SimSiam: two views, one network, stop-gradient, MLP predictor",
                 "section 3, Eq. 2"),
        _simsiam("simsiam-np", bare, "SimSiam without a predictor: collapses", "section 4.2, Table 1"),
        _simsiam("simsiam-nosg", simsiam.but(target=Same(stop_gradient=False)),
                 "SimSiam without stop-gradient: collapses", "section 4.1, Figure 2"),
        _simsiam("simsiam-moving-average", bare.but(target=Memory()),
                 "SimSiam without a predictor, against a moving average per image", "section 5.2"),
        Entry("byol", byol, BYOL_PROJECTOR, "BYOL: EMA target, MLP predictor",
              "Grill et al. 2020", "section 3, Eq. 2", "grill2020byol", "byol"),
        _directpred("byol-lp", byol.but(predictor=Linear()), "BYOL with a learned linear predictor",
                    "section 2, Eq. 1"),
        _directpred("byol-slp", byol.but(predictor=Linear(symmetric=True)),
                    "BYOL with a learned symmetric linear predictor", "section 3, Table 3"),
        _raft("byol-lpi", byol.but(predictor=Linear(init="identity")),
              "BYOL with a linear predictor that starts at the identity", "section 3, Figure 4"),
        _directpred("byol-np", byol.but(predictor=Identity()), "BYOL without a predictor: collapses",
                    "section 2"),
        # a gradient into the slow copy reaches no weight that is trained, so the reading that means
        # something is W_a = W, as in Theorem 2
        _directpred("byol-nosg", byol.but(target=Same(stop_gradient=False)),
                    "BYOL without stop-gradient (W_a = W): collapses", "section 2, Theorem 2"),
        _directpred("directpred", directpred,
                    "DirectPred: EMA target, linear predictor set from the correlation of z",
                    "section 4, Algorithm 1"),
        _directpred("directpred-text", byol.but(predictor=Spectral(eps_form="text")),
                    "DirectPred with eps as in the paper's text", "section 4, Eq. 18"),
        _directpred("directpred-freq5", byol.but(predictor=Spectral(freq=5)),
                    "DirectPred, set at every fifth step and learned in between", "section 5, Table 8"),
        _directpred("directpred-partitions", byol.but(predictor=Partitioned()),
                    "DirectPred as a mean over random partitions", "section 6"),
        _directpred("simsiam-directpred", simsiam.but(predictor=Spectral()),
                    "DirectPred without an EMA target", "section 4"),
        _directpred("optimal-predictor", byol.but(predictor=Optimal()),
                    "BYOL with the least-squares predictor at every step", "section 3, Table 1"),
        Entry("directcopy", byol.but(predictor=Spectral(exponent=1, eps=0.25)), BYOL_PROJECTOR,
              "DirectCopy: the predictor is the correlation of z itself, lifted",
              "Wang et al. 2021", "section 4", "wang2021directcopy", "directpred"),
        _isoloss("isoloss", directpred.but(gradient=StraightThrough()),
                 "IsoLoss: DirectPred whose predictor passes gradients on as the identity",
                 "section 4, Eq. 17"),
        _isoloss("isoloss-euclidean", directpred.but(gradient=StraightThrough(), distance=Euclidean()),
                 "IsoLoss with the Euclidean distance", "section 4, Eq. 16"),
        _raft("byol-prime", byol_prime, "BYOL': align the views, and with the teacher", "section 4.1, Eq. 6"),
        _raft("byol-prime-lp", byol_prime.but(predictor=Linear()), "BYOL' with a linear predictor",
              "Table 1"),
        _raft("byol-prime-np", byol_prime.but(predictor=Identity()),
              "BYOL' without a predictor: collapses", "Table 1"),
        _raft("raft", raft, "RAFT: align the views, run away from the teacher", "section 4.2, Eq. 8"),
        _raft("raft-lp", raft.but(predictor=Linear()), "RAFT with a linear predictor", "Table 1"),
        _raft("raft-np", raft.but(predictor=Identity()), "RAFT without a predictor: learns nothing",
              "Table 1"),
        _raft("tan-byol-lp", byol.but(predictor=Linear(), distance=SquaredL2(), gradient=Tangential()),
              "BYOL, linear predictor, tangential gradient only", "section 5, Table 1"),
        _raft("tan-byol-prime-lp", byol_prime.but(predictor=Linear(), gradient=Tangential()),
              "BYOL', linear predictor, tangential gradient only", "section 5, Table 1"),
        _raft("tan-raft-lp", raft.but(predictor=Linear(), gradient=Tangential()),
              "RAFT, linear predictor, tangential gradient only", "section 5, Table 1"),
        _analysis("simsiam-naive", bare.but(target=Same(stop_gradient=False)),
                  "Naive Siamese network: no predictor, no stop-gradient: collapses", "section 2, Eq. 1"),
        _analysis("simsiam-mirror", simsiam.but(pairing=MIRROR),
                  "Mirror SimSiam, the gradient on the path without predictor: collapses",
                  "section 2.3, Algorithm 2"),
        _analysis("simsiam-symmetric-predictor", simsiam.but(pairing=SYMMETRIC),
                  "SimSiam with the predictor on both paths: p collapses", "section 2.3, Algorithm 3"),
        _analysis("simsiam-inverse-predictor", simsiam.but(pairing=INVERSE),
                  "SimSiam whose target passes a trainable inverse predictor", "section 2.3, Algorithm 4"),
        _analysis("simsiam-eoa",
                  bare.but(target=Expectation(), pairing=(Pair(query="p1", key="t1", weight=1),)),
                  "No predictor, against the mean of 9 further views of the batch: collapses",
                  "section 2.2, Table 1"),
        _analysis("simsiam-oe", simsiam.but(gradient=Decomposed(residual=False)),
                  "SimSiam with o_e of its extra gradient alone", "section 3.3, Table 4"),
        _analysis("simsiam-re", simsiam.but(gradient=Decomposed(center=False)),
                  "SimSiam with r_e of its extra gradient alone", "section 3.3, Table 4"),
        _analysis("simsiam-no-extra", simsiam.but(gradient=Decomposed(center=False, residual=False)),
                  "SimSiam without its extra gradient: collapses", "section 3.3, Table 4"),
        _analysis("triplet", bare.but(distance=Triplet()), "Simple triplet loss, one negative",
                  "section 3.2, Table 3"),
        _analysis("triplet-oe", bare.but(distance=Triplet(), gradient=Decomposed(residual=False)),
                  "Triplet loss with o_e of its extra gradient alone", "section 3.2, Table 3"),
        _analysis("triplet-re", bare.but(distance=Triplet(), gradient=Decomposed(center=False)),
                  "Triplet loss with r_e of its extra gradient alone: collapses", "section 3.2, Table 3"),
        _analysis("infonce", bare.but(distance=InfoNce()), "InfoNCE, the keys without a gradient",
                  "section 3.5, A.7, Eq. 5"),
        _analysis("infonce-oe", bare.but(distance=InfoNce(), gradient=Decomposed(residual=False)),
                  "InfoNCE with o_e of its extra gradient alone", "section 3.5, Figure 6"),
        _analysis("simple-contrastive", bare.but(distance=SimpleContrastive()),
                  "Every negative pushes alike: InfoNCE at a high temperature", "A.7"),
        _analysis("decorrelation", batch_loss.but(distance=Decorrelation(normalise="batch")),
                  "De-correlation of the dimensions alone, no attraction", "section 3.4, A.6"),
        _analysis("naive-l2-bn", bare.but(target=Same(stop_gradient=False), distance=StandardisedMse()),
                  "Naive Siamese network, batch normalisation after l2, right before the MSE", "section 4"),
        _analysis("simsiam-bias", simsiam.but(predictor=Bias()), "SimSiam, the predictor a single bias",
                  "section 4, Table 5"),
        _analysis("simsiam-two-fc", simsiam.but(predictor=TwoFc()),
                  "SimSiam, the predictor two linear layers", "section 4, Table 5"),
        _analysis("simsiam-tanh-fc", simsiam.but(predictor=TanhFc()),
                  "SimSiam, the predictor one linear layer within tanh", "section 4, Table 5"),
        _baseline("simclr", batch_loss.but(distance=NtXent()), "SimCLR: NT-Xent over both views of the batch",
                  "Chen et al. 2020", "section 2.1, Eq. 1", "chen2020simclr"),
        _baseline("barlow-twins", batch_loss.but(distance=BarlowTwins()),
                  "Barlow Twins: the views' cross-correlation towards the identity",
                  "Zbontar et al. 2021", "section 2, Eq. 1", "zbontar2021barlow"),
        _baseline("vicreg", batch_loss.but(distance=VicReg()),
                  "VICReg: variance, invariance and covariance", "Bardes et al. 2022", "section 4, Eq. 6",
                  "bardes2022vicreg"),
        _baseline("wmse", batch_loss.but(distance=WhitenedMse()), "W-MSE: squared error of whitened views",
                  "Ermolov et al. 2021", "section 3, Eq. 4", "ermolov2021whitening"),
        Entry("dino-centering",
              byol.but(target=Ema(tau=0.996, centring=0.9), predictor=Identity(), distance=CrossEntropy()),
              BYOL_PROJECTOR, "DINO's loss on a projection: centred and sharpened EMA target",
              "Caron et al. 2021", "section 3.1, Eqs. 1 and 4", "caron2021dino", "auto"),
        Entry("supervised", Supervised(), BYOL_PROJECTOR,
              "Cross-entropy on the labels: the upper reference", "this project", "", "stopgrad", "auto"),
    )
}  # fmt: skip


def lookup(name: str) -> Entry:
    """The catalogue's entry for ``name``.

    Raises:
        UsageError: for an unknown name, with the nearest one.
    """
    if name not in CATALOG:
        raise unknown("method", name, list(CATALOG))
    return CATALOG[name]
