"""Weighted nearest-neighbour classification on frozen features.

Wu et al. 2018 (Unsupervised feature learning via non-parametric instance discrimination, section 3.4):
cosine similarity, and each of the k nearest images votes for its class with weight
exp(similarity / temperature).

Shapes: Q queries, N images of the bank, D features, K classes, k neighbours, G groups of the bank.
"""

import torch
from torch import Tensor
from torch.nn import functional

from stopgrad.errors import UsageError
from stopgrad.evaluation.shares import ALONE, Shares
from stopgrad.evaluation.vectors import check_labels, check_vectors

QUERIES_AT_ONCE = 1024
BANK_AT_ONCE = 16_384
GROUP = 32
"""Neighbouring images of the bank whose best similarity is looked at first."""


@torch.no_grad()
def knn_predict(
    queries: Tensor,
    bank: Tensor,
    labels: Tensor | None,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str | None = None,
) -> Tensor:
    """The class (Q,), int64, with the largest vote among the k nearest images of the bank.

    Ties go to the lowest class index, and of equally similar images the one with the lower bank index is
    nearer: the answer depends on neither the device nor how the work is cut. ``temperature=math.inf`` counts
    every neighbour alike. Beside the inputs, memory is bounded by ``QUERIES_AT_ONCE * BANK_AT_ONCE``
    similarities and as many features of the bank: parts of both go to ``device`` one after the other.

    Args:
        queries: (Q, D) features.
        bank: (N, D) features of the labelled images.
        labels: (N,) class indices in [0, K).
        classes: K.
        k: number of neighbours, 1 to N.
        temperature: above 0.
        device: where to compute; that of the queries by default.

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
    parts = [part.to(device or queries.device) for part in queries.split(QUERIES_AT_ONCE)]
    return torch.cat([_vote(part, bank, labels, classes, k, temperature) for part in parts]).to(
        queries.device
    )


def knn_accuracy(
    queries: Tensor,
    query_labels: Tensor | None,
    bank: Tensor,
    labels: Tensor | None,
    classes: int,
    k: int = 20,
    temperature: float = 0.07,
    device: torch.device | str | None = None,
    shares: Shares = ALONE,
) -> float:
    """Fraction in [0, 1] of the queries whose :func:`knn_predict` is their label.

    Of several processes (``shares``) each looks for the neighbours of its share of the queries; all give the
    same arguments and get the same number.

    Raises:
        UsageError: as :func:`knn_predict`.
    """
    truth = check_labels(query_labels, len(queries), "kNN query labels").cpu()
    own = shares.of(len(queries))
    hits = 0
    if len(truth[own]):
        predicted = knn_predict(queries[own], bank, labels, classes, k, temperature, device)
        hits = int((predicted.cpu() == truth[own]).sum())
    return shares.sum(hits) / len(queries)


def _vote(queries: Tensor, bank: Tensor, labels: Tensor, classes: int, k: int, temperature: float) -> Tensor:
    similarities, neighbours = _unpack(_nearest_keys(queries, bank, k))
    # Relative to the nearest one: the same winner, and no overflow at low temperatures.
    weights = torch.exp((similarities - similarities[:, :1]) / temperature)
    votes = weights.new_zeros(len(queries), classes)
    candidates = labels[neighbours.to(labels.device)].to(votes.device)
    # One neighbour after the other: summation in a fixed order, unlike an atomic scatter on CUDA.
    for weight, candidate in zip(weights.split(1, dim=1), candidates.split(1, dim=1), strict=True):
        votes.scatter_(1, candidate, votes.gather(1, candidate) + weight)
    return votes.argmax(dim=1)


def _nearest_keys(queries: Tensor, bank: Tensor, k: int) -> Tensor:
    """Keys (Q, k) of the k nearest, nearest first."""
    directions = functional.normalize(queries.float(), dim=1)
    best = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), BANK_AT_ONCE):
        part = functional.normalize(bank[start : start + BANK_AT_ONCE].to(queries.device).float(), dim=1)
        similarities, columns = _candidates(directions @ part.T, k)
        keys = torch.cat([best, _pack(similarities, columns + start)], dim=1)
        best = keys.topk(min(k, keys.shape[1]), dim=1).values
    return best


def _candidates(similarities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Some entries (Q, C) of each row of (Q, N) and their columns, among them its k nearest.

    Those are in the k groups whose best entries are nearest, equally near ones being taken in their order:
    an entry outside has k before it, one of each of these groups. So keys are made of few entries only, which
    takes a sixth of the time of making them of all.
    """
    groups = similarities.shape[1] // GROUP
    if groups <= k:
        return similarities, torch.arange(similarities.shape[1], device=similarities.device)[None]
    split = groups * GROUP
    grouped = similarities[:, :split].unflatten(1, (groups, GROUP))
    order = torch.arange(groups, device=similarities.device)[None]
    chosen = _unpack(_pack(grouped.amax(dim=2), order).topk(k, dim=1).values)[1]
    inside = grouped.gather(1, chosen[:, :, None].expand(-1, -1, GROUP)).flatten(1)
    within = torch.arange(GROUP, device=similarities.device)
    columns = (chosen[:, :, None] * GROUP + within).flatten(1)
    rest = torch.arange(split, similarities.shape[1], device=similarities.device)
    return (
        torch.cat([inside, similarities[:, split:]], dim=1),
        torch.cat([columns, rest.expand(len(columns), -1)], dim=1),
    )


def _pack(similarities: Tensor, index: Tensor) -> Tensor:
    # One int64 a pair: the float's bits, made to order as integers do, above the complement of the bank
    # index. All keys differ, so that top-k has no ties that a device could break in its own way.
    bits = (similarities + 0.0).view(torch.int32)  # + 0.0: no negative zero
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (0xFFFFFFFF - index)


def _unpack(keys: Tensor) -> tuple[Tensor, Tensor]:
    ordered = (keys >> 32).int()
    bits = ordered ^ ((ordered >> 31) & 0x7FFFFFFF)
    return bits.view(torch.float32), 0xFFFFFFFF - (keys & 0xFFFFFFFF)
