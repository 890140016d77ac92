"""Which node is pulled to which: weighted (query, key) pairs of nodes.

A node is a letter and a view: ``z1`` the online projection of view 1, ``p1`` the predictor's output for it,
``t1`` the target's projection. Functions of nodes are nodes: ``sg(z1)`` without a gradient, ``p(t1)`` the
predictor applied to it, ``inv(p1)`` the inverse predictor, a second network of the predictor's shape.
"""

import re
from functools import cache
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

from stopgrad.frozen import Frozen

_NODE = re.compile(r"((?:(?:sg|p|inv)\()*)([zpt])([1-9])(\)*)")


class Node(NamedTuple):
    """A node read from its text: ``functions`` outermost first, ``letter`` z, p or t, ``view`` from 1."""

    functions: tuple[str, ...]
    letter: str
    view: int

    @classmethod
    @cache  # every step reads the same few
    def read(cls, text: str) -> "Node":
        """The node that a text such as ``sg(inv(p2))`` stands for.

        Raises:
            ValueError: for a text that is none.
        """
        match = _NODE.fullmatch(text)
        if match is None or match[1].count("(") != len(match[4]):
            raise ValueError(
                "a node is z, p or t and a view, such as 'p1', or sg(), p() or inv() of one, such as 'p(t2)'"
            )
        return cls(tuple(match[1].split("(")[:-1]), match[2], int(match[3]))

    def __str__(self) -> str:
        inside = f"{self.letter}{self.view}"
        return "(".join([*self.functions, inside]) + ")" * len(self.functions)


def _checked(text: str) -> str:
    return str(Node.read(text))


NodeName = Annotated[str, AfterValidator(_checked)]


class Pair(Frozen):
    """One term of the loss: weight * distance(query, key)."""

    query: NodeName
    key: NodeName
    weight: float = 0.5

    def __str__(self) -> str:
        return f"{self.weight:g} d({self.query}, {self.key})"


def both_ways(query: str, key: str, weight: float = 0.5) -> tuple[Pair, Pair]:
    """A pair of view 1 and 2 and the same with the views exchanged.

    >>> [str(pair) for pair in both_ways("p1", "t2")]
    ['0.5 d(p1, t2)', '0.5 d(p2, t1)']
    """
    swap = str.maketrans("12", "21")
    return (
        Pair(query=query, key=key, weight=weight),
        Pair(query=query.translate(swap), key=key.translate(swap), weight=weight),
    )


CROSS_VIEW = both_ways("p1", "t2")
"""Each prediction and the other view's target: SimSiam, BYOL and most others."""

MIRROR = both_ways("z1", "p(t2)")
"""Gradient through the path without the predictor (Zhang et al. 2022, Fig. 1c, Algorithm 2)."""

SYMMETRIC = both_ways("p1", "sg(p2)")
"""The predictor on both paths (Zhang et al. 2022, Fig. 2b, Algorithm 3)."""

INVERSE = (
    *both_ways("p(t1)", "t2"),
    *both_ways("inv(sg(p1))", "t1"),
    *both_ways("p1", "sg(inv(p2))"),
)
"""Predictor, inverse predictor and encoder, a loss each (Zhang et al. 2022, Fig. 2c, Algorithm 4).

Their third loss lacks the 1/2 before its second half; here both halves weigh the same.
"""


def raft_pairs(a: float, b: float) -> tuple[Pair, ...]:
    """a L_align - b L_cross: towards the other view, away from the teacher of the same view.

    With b < 0 it is BYOL' (towards the teacher). Source: Shi et al. (RAFT), Eqs. 6 and 8.

    >>> " + ".join(map(str, raft_pairs(1, 2)))
    '1 d(p1, p2) + -1 d(p1, t1) + -1 d(p2, t2)'
    """
    return (Pair(query="p1", key="p2", weight=a), *both_ways("p1", "t1", -b / 2))
