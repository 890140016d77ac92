"""Which node is pulled to which: weighted (query, key) pairs of the nodes z_v, p_v and t_v."""

from pydantic import Field

from stopgrad.frozen import Frozen

NODE = r"^[zpt][12]$"


class Pair(Frozen):
    """One term of the loss: weight * distance(query, key).

    A node is a letter and a view: ``z1`` the online projection of view 1, ``p1`` the predictor's output
    for it, ``t1`` the target's projection.
    """

    query: str = Field(pattern=NODE)
    key: str = Field(pattern=NODE)
    weight: float = 0.5

    def __str__(self) -> str:
        return f"{self.weight:g} d({self.query}, {self.key})"


CROSS_VIEW = (Pair(query="p1", key="t2"), Pair(query="p2", key="t1"))
