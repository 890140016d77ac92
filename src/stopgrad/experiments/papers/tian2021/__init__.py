"""Tian et al. 2021, "Understanding self-supervised learning dynamics without contrastive pairs" (DirectPred).

The paper's accuracies are linear probes on STL-10 after 100 epochs, mean of 5 seeds; ours are linear probes
on `digits`. Claims are in their corrected form; where text and equations differ, the equations are meant.
"""

from stopgrad.experiments.papers.tian2021.appendix import APPD, FIG7, FIG8, FIG9, FIG10
from stopgrad.experiments.papers.tian2021.directpred import PARTITIONS, TBL6, TBL7, TBL8, TBL9
from stopgrad.experiments.papers.tian2021.learned import FIG2, FIG6, TBL1, TBL2, TBL3, TBL3_MLP, TBL5
from stopgrad.experiments.papers.tian2021.phase import PANELS
from stopgrad.experiments.papers.tian2021.theory import (
    DECOUPLED,
    FIG3,
    FIG4,
    FIG5,
    INTEGRAL,
    LEMMA1,
    NOPRED,
    OBS,
    THM1,
    THM2,
    THM3,
)

EXPERIMENTS = (
    LEMMA1, THM1, THM2, NOPRED, THM3, DECOUPLED, INTEGRAL, FIG3, FIG4, OBS, FIG5, FIG7, FIG8, FIG9, FIG10,
    APPD, FIG2, TBL1, TBL2, TBL3, TBL3_MLP, TBL5, FIG6, TBL6, TBL7, TBL8, PARTITIONS, TBL9,
    *PANELS,
)  # fmt: skip
