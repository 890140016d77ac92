import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad.evaluation.shares import ALONE, Shares


@given(st.integers(0, 100), st.integers(1, 20), st.integers(1, 9))
def test_shares_are_whole_groups_that_together_are_all_in_order(count, unit, world):
    rows = torch.arange(count)
    shares = [rows[Shares(rank, world).of(count, unit)] for rank in range(world)]
    assert torch.equal(torch.cat(shares), rows)
    groups = [{int(i) // unit for i in share} for share in shares]
    assert sum(map(len, groups)) == len(set().union(*groups))  # no group is cut
    assert max(map(len, groups)) - min(map(len, groups)) <= 1
    assert count == 0 or groups[0]


def test_alone_has_everything():
    rows = torch.randn(7, 3)
    assert ALONE.of(7, 2) == slice(0, 7)
    assert ALONE.gather(rows, 7, 2) is rows
    assert ALONE.sum(5) == 5
