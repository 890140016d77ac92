"""Zhang et al. 2022, "How does SimSiam avoid collapse without negative samples?" (SimSiam analysis).

The paper's accuracies are online linear probes on CIFAR-100 after 1000 epochs, one run each; ours are linear
probes on `digits`. Its standard deviations are given times the square root of its width, 2048, as ours are.
What it calls collapse is 1 % accuracy, its column of ticks; ours is judged from the vectors.

All projectors end in batch normalisation without scale and shift, as the paper's do, unless an arm says "no
final BN".
"""

from stopgrad.experiments.papers.zhang2022.architectures import FIG3, TBL1, TBL2
from stopgrad.experiments.papers.zhang2022.correlation import FIG5B, FIG5C, FIG6, FIG8, INFONCE
from stopgrad.experiments.papers.zhang2022.gradients import FIG4, FIG5A, TBL3, TBL4
from stopgrad.experiments.papers.zhang2022.predictors import BN, TBL5, TBL6

EXPERIMENTS = (
    TBL1, TBL2, FIG3, FIG4, TBL3, TBL4, FIG5A, FIG5B, FIG5C, FIG6, FIG8, TBL5, TBL6, BN, INFONCE,
)  # fmt: skip
