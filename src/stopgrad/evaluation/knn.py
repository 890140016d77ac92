"""Weighted nearest-neighbour classification on frozen features.

Wu et al. 2018 (Unsupervised feature learning via non-parametric instance discrimination, section 3.4):
cosine similarity, and each of the k nearest images votes for its class with weight
exp(similarity / temperature).

Shapes: Q queries, N images of the bank, D features, K classes, k neighbours.
"""

import torch
from torch import Tensor
from torch.nn import functional

from stopgrad.errors import UsageError
from stopgrad.evaluation.vectors import check_labels, check_vectors

QUERIES_AT_ONCE = 1024
BANK_AT_ONCE = 16_384


@torch.no_grad()
def knn_predict(
    queries: Tensor, bank: Tensor, labels: Tensor | None, classes: int, k: int = 20, temperature: float = 0.07
) -> Tensor:
    """The class (Q,), int64, with the largest vote among the k nearest images of the bank.

    Ties go to the lowest class index, and of equally similar images the one with the lower bank index is
    nearer: the answer depends on neither the device nor how the work is cut. ``temperature=math.inf`` counts
    every neighbour alike. Beside the inputs, memory is bounded by ``QUERIES_AT_ONCE * BANK_AT_ONCE``
    similarities.

    Args:
        queries: (Q, D) features.
        bank: (N, D) features of the labelled images.
        labels: (N,) class indices in [0, K).
        classes: K.
        k: number of neighbours, 1 to N.
        temperature: above 0.

    Raises:
        UsageError: k outside [1, N], missing or foreign labels, widths that differ, NaN or infinity.
    """
    check_vectors(queries, "kNN queries")
    check_vectors(bank, "kNN bank")
    if queries.shape[1] != bank.shape[1]:
        raise UsageError(f"kNN: queries have {queries.shape[1]} features, the bank has {bank.shape[1]}")
    if not 1 <= k <= len(bank):
        raise UsageError(f"kNN: k = {k} is not in [1, {len(bank)}], the size of the bank; choose another k")
    labels = check_labels(labels, len(bank), "kNN labels")
    if int(labels.max()) >= classes:
        raise UsageError(f"kNN labels: label {int(labels.max())} is not below the {classes} classes")
    if not temperature > 0:
        raise UsageError(f"kNN: temperature {temperature} is not above 0")
    similarities, neighbours = _unpack(
        torch.cat([_nearest_keys(part, bank, k) for part in queries.split(QUERIES_AT_ONCE)])
    )
    # Relative to the nearest one: the same winner, and no overflow at low temperatures.
    weights = torch.exp((similarities - similarities[:, :1]) / temperature)
    votes = weights.new_zeros(len(queries), classes)
    candidates = labels.to(neighbours.device)[neighbours]
    every = torch.arange(classes, device=votes.device)
    # One neighbour after the other: summation in a fixed order, unlike an atomic scatter on CUDA.
    for weight, candidate in zip(weights.T, candidates.T, strict=True):
        votes += weight[:, None] * (candidate[:, None] == every)
    return votes.argmax(dim=1)


def knn_accuracy(
    queries: Tensor,
    query_labels: Tensor | None,
    bank: Tensor,
    labels: Tensor | None,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Fraction in [0, 1] of the queries whose :func:`knn_predict` is their label.

    Raises:
        UsageError: as :func:`knn_predict`.
    """
    truth = check_labels(query_labels, len(queries), "kNN query labels")
    predicted = knn_predict(queries, bank, labels, classes, k, temperature)
    return float((predicted.cpu() == truth.cpu()).double().mean())


def _nearest_keys(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    directions = functional.normalize(queries.float(), dim=1)
    best = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BANK_AT_ONCE):
        part = functional.normalize(bank[start : start + BANK_AT_ONCE].float(), dim=1)
        keys = torch.cat([best, _pack(directions @ part.T.to(directions.device), start)], dim=1)
        best = keys.topk(min(k, keys.shape[1]), dim=1).values
    return best


def _pack(similarities: Tensor, first: int) -> Tensor:
    # One int64 a pair: the float's bits, made to order as integers do, above the complement of the bank
    # index. All keys differ, so that top-k has no ties that a device could break in its own way.
    bits = (similarities + 0.0).view(torch.int32)  # + 0.0: no negative zero
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    index = torch.arange(first, first + similarities.shape[1], device=similarities.device)
    return (ordered.long() << 32) | (0xFFFFFFFF - index)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = (keys >> 32).int()
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.view(torch.float32), 0xFFFFFFFF - (keys & 0xFFFFFFFF)
