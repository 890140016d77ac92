"""Losses with negatives: the other images of the batch push a query away.

Legend: B batch, D width; a query and a key are (B, D) each, row i of both from image i. In formulas Q and K
are their l2-normalised rows, lam (B, B) the softmax over the keys of <Q_i, K_j> / temperature.
"""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor
from torch.nn.functional import cross_entropy

from stopgrad.diagnostics import Gradient, unit
from stopgrad.parts.distances.batch import BatchLoss
from stopgrad.parts.precision import full_precision


class InfoNce(BatchLoss):
    """Minus the logarithm of the softmax over all keys at the own one, mean over the queries, >= 0.

    The candidates are the rows of ``key``: a query's own key and B - 1 negatives; other queries are none.
    Where all keys are alike, as in full collapse, it is log B.

    Source: Zhang et al. 2022, A.7, Eq. 5, who train it as SimCLR, with the 2B - 2 negatives of `NtXent`; here
    as their equation is, with one set of keys.
    """

    kind: Literal["infonce"] = "infonce"
    temperature: float = Field(0.2, gt=0)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar >= 0."""
        return cross_entropy(self._logits(query, key), torch.arange(len(key), device=key.device))

    def formula(self) -> str:
        """d(q, k) in one line."""
        return (
            "d(q, k) = -log(exp(<q, k> / T) / sum_j exp(<q, k_j> / T)), q and all keys k_j l2-normalised, "
            f"T = {self.temperature:g}"
        )

    def pull(self, query: Tensor, key: Tensor, basic: Tensor) -> Gradient:
        """(K - lam K) / temperature for keys that are stopped: the own one is basic, all are extra (Eq. 6).

        The paper drops the 1 / temperature and says that o_e is minus the centre of the keys; that is so only
        where every key gets the same total weight, as when the temperature grows without bound.
        """
        with full_precision(query.device):
            weights = self._logits(query, key).softmax(dim=-1)
            keys = unit(key)
            return Gradient(keys / self.temperature, -(weights @ keys) / self.temperature)

    def _logits(self, query: Tensor, key: Tensor) -> Tensor:
        return unit(query) @ unit(key).T / self.temperature


class NtXent(BatchLoss):
    """SimCLR's loss, mean over the 2B anchors, >= 0: queries and keys alike are anchors and candidates.

    An anchor's candidates are its positive, the other view of its image, and the 2B - 2 vectors of the other
    images in both views. It is symmetric in query and key; in full collapse it is log(2B - 1).

    Source: Chen et al. 2020 (SimCLR), Eq. 1. Their temperature is 0.5 for CIFAR-10 and 0.1 for ImageNet.
    """

    kind: Literal["nt-xent"] = "nt-xent"
    temperature: float = Field(0.5, gt=0)

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar >= 0."""
        rows = unit(torch.cat([query, key]))
        logits = rows @ rows.T / self.temperature
        itself = torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        positive = torch.arange(len(rows), device=rows.device).roll(len(query))
        return cross_entropy(logits.masked_fill(itself, -torch.inf), positive)

    def formula(self) -> str:
        """d(q, k) in one line."""
        return (
            "d(q, k) = -1/2 log(exp(<q, k> / T) / sum_{x != q} exp(<q, x> / T)) - 1/2 the same with q and k "
            f"exchanged, x all queries and keys, all l2-normalised, T = {self.temperature:g}"
        )


class Triplet(BatchLoss):
    """A query's similarity to another image's key less that to its own, mean over the batch, in [-2, 2].

    The other image is the one before in the batch. Batches are random permutations, so that it is a random
    one; each image is a negative once.

    Source: Zhang et al. 2022, section 3.2. It has no margin and no clipping, as theirs.
    """

    kind: Literal["triplet"] = "triplet"

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar in [-2, 2]."""
        return -(unit(query) * self.pull(query, key, key).full).sum(dim=-1).mean()

    def formula(self) -> str:
        """d(q, k) in one line."""
        return "d(q, k) = -<q, k - k_n> / ||q||, k and k_n l2-normalised, k_n the key of the image before"

    def pull(self, query: Tensor, key: Tensor, basic: Tensor) -> Gradient:
        """K_i - K_{i-1} for keys that are stopped: the own one is basic, the negative one is extra."""
        keys = unit(key)
        return Gradient(keys, -keys.roll(1, dims=0))


class SimpleContrastive(BatchLoss):
    """The mean similarity to the other images' keys less that to the own, mean over the batch, in [-2, 2].

    What `InfoNce` tends to, up to its constant and factor, as its temperature grows without bound.

    Source: Zhang et al. 2022, A.7.
    """

    kind: Literal["simple-contrastive"] = "simple-contrastive"

    def of_rows(self, query: Tensor, key: Tensor) -> Tensor:
        """(B, D) and (B, D) to a scalar in [-2, 2]."""
        return -(unit(query) * self.pull(query, key, key).full).sum(dim=-1).mean()

    def formula(self) -> str:
        """d(q, k) in one line."""
        return "d(q, k) = -<q, k> + mean of <q, k_n> over the keys k_n of the other images, all l2-normalised"

    def pull(self, query: Tensor, key: Tensor, basic: Tensor) -> Gradient:
        """For keys that are stopped: the own one is basic, minus the mean of the other images' is extra."""
        keys = unit(key)
        return Gradient(keys, -(keys.sum(dim=0) - keys) / (len(keys) - 1))
