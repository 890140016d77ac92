"""The methods by name: each a sentence of parts, with its paper and the projector it was published with."""

from typing import NamedTuple

from stopgrad.errors import unknown
from stopgrad.method import Method, Supervised
from stopgrad.networks.heads import ProjectorSettings
from stopgrad.parts.predictors import Identity, Linear, Mlp, Spectral
from stopgrad.parts.target import Ema, Same

# The last layer of the projector decides some verdicts, so it is part of the catalogue: the SimSiam family
# ends in batch normalisation without affine parameters, the BYOL family in a plain linear layer.
SIMSIAM_PROJECTOR = ProjectorSettings(final_bn="plain")
BYOL_PROJECTOR = ProjectorSettings(final_bn="none")

simsiam = Method(target=Same(stop_gradient=True), predictor=Mlp())
byol = simsiam.but(target=Ema(tau=0.996))


class Entry(NamedTuple):
    """One row of the catalogue."""

    name: str
    method: Method | Supervised
    projector: ProjectorSettings
    title: str
    paper: str
    section: str
    cite: str


CATALOG: dict[str, Entry] = {
    entry.name: entry
    for entry in (
        Entry(
            "simsiam", simsiam, SIMSIAM_PROJECTOR,
            "SimSiam: two views, one network, stop-gradient, MLP predictor",
            "Chen and He 2021", "section 3, Eq. 2", "chen2021simsiam",
        ),
        Entry(
            "simsiam-np", simsiam.but(predictor=Identity()), SIMSIAM_PROJECTOR,
            "SimSiam without a predictor: collapses",
            "Chen and He 2021", "section 4.2, Table 1", "chen2021simsiam",
        ),
        Entry(
            "simsiam-nosg", simsiam.but(target=Same(stop_gradient=False)), SIMSIAM_PROJECTOR,
            "SimSiam without stop-gradient: collapses",
            "Chen and He 2021", "section 4.1, Figure 2", "chen2021simsiam",
        ),
        Entry(
            "byol", byol, BYOL_PROJECTOR,
            "BYOL: EMA target, MLP predictor",
            "Grill et al. 2020", "section 3, Eq. 2", "grill2020byol",
        ),
        Entry(
            "byol-lp", byol.but(predictor=Linear()), BYOL_PROJECTOR,
            "BYOL with a learned linear predictor",
            "Tian et al. 2021", "section 2, Eq. 1", "tian2021directpred",
        ),
        Entry(
            "byol-np", byol.but(predictor=Identity()), BYOL_PROJECTOR,
            "BYOL without a predictor: collapses",
            "Tian et al. 2021", "section 2", "tian2021directpred",
        ),
        # a gradient into the slow copy reaches no weight that is trained, so the reading that means
        # something is W_a = W, as in Theorem 2
        Entry(
            "byol-nosg", byol.but(target=Same(stop_gradient=False)), BYOL_PROJECTOR,
            "BYOL without stop-gradient (W_a = W): collapses",
            "Tian et al. 2021", "section 2, Theorem 2", "tian2021directpred",
        ),
        Entry(
            "directpred", byol.but(predictor=Spectral()), BYOL_PROJECTOR,
            "DirectPred: EMA target, linear predictor set from the correlation of z",
            "Tian et al. 2021", "section 4, Algorithm 1", "tian2021directpred",
        ),
        Entry(
            "supervised", Supervised(), BYOL_PROJECTOR,
            "Cross-entropy on the labels: the upper reference",
            "this project", "", "stopgrad",
        ),
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
