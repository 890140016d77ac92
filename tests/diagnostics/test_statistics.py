import json
import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from stopgrad import diagnostics as d
from stopgrad.diagnostics import statistics

PURE = {
    "std": d.embedding_std,
    "m_o": d.center_norm,
    "m_r": d.residual_norm,
    "effective_rank": d.effective_rank,
    "rankme": d.rankme,
    "participation_ratio": d.participation_ratio,
    "alpha_req": d.alpha_req,
    "off_diagonal_covariance": d.off_diagonal_covariance,
    "uniformity": d.uniformity,
}


def cloud(seed, n=40, dim=6):
    return torch.randn(n, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def of(*batches, dim=None):
    found = d.VectorStatistics(dim or batches[0].shape[1])
    for batch in batches:
        found.update(batch)
    return found


def same(first, second, rel=1e-9):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert value == pytest.approx(second[name], rel=rel, abs=1e-12, nan_ok=True), name


def expected(x):
    norms = x.norm(dim=1)
    return {
        "count": len(x),
        "dim": x.shape[1],
        "finite": 1.0,
        "zero_rows": float((norms == 0).double().mean()),
        "norm": float(norms.mean()),
        "raw_std": float(x.std(dim=0, correction=0).mean()),
        **{name: float(measure(x)) for name, measure in PURE.items()},
        "spectrum": d.spectrum(x, 128).tolist(),
    }


splits = st.lists(st.integers(0, 60), max_size=6).map(sorted)


@given(st.integers(0, 2**31), st.integers(2, 60), splits, st.integers(0, 6), st.floats(0, 5))
def test_any_split_and_merge_is_the_pure_functions_on_all_rows(seed, n, cuts, order, mean):
    x = cloud(seed, n) * torch.arange(1, 7) ** -1.0 + mean
    batches = torch.tensor_split(x, [min(cut, n) for cut in cuts])
    same(of(*batches).compute(), expected(x), 1e-10)
    parts = [of(batch) for batch in batches]
    while len(parts) > 1:
        first = parts.pop(order % len(parts))
        parts[order % len(parts)].merge(first)
    same(parts[0].compute(), expected(x), 1e-10)


@given(st.integers(0, 2**31), st.lists(st.integers(0, 700), min_size=3, max_size=3))
def test_merging_is_associative_and_commutative(seed, sizes):
    def parts():
        return [of(cloud(seed + i, n, 3) + i) for i, n in enumerate(sizes)]

    a, b, c = parts()
    a.merge(b)
    a.merge(c)
    x, y, z = parts()
    y.merge(z)
    y.merge(x)
    same(a.compute(), y.compute())
    assert torch.equal(a._sample.keys, y._sample.keys)


def test_merging_leaves_the_other_as_it_was_and_both_go_on():
    x, y, z = cloud(0), cloud(1, 3), cloud(2)
    first, second = of(x), of(y)
    first.merge(second)
    second.update(z)
    first.update(z)
    same(first.compute(), expected(torch.cat([x, y, z])))
    same(second.compute(), expected(torch.cat([y, z])))
    second.merge(second)
    same(second.compute(), expected(torch.cat([y, z, y, z])))


def test_rows_may_change_after_they_were_taken_in():
    x = cloud(0, 5)
    found, before = of(x), expected(x)
    x.zero_()
    same(found.compute(), before)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("n", [100, 20])
def test_narrow_types_are_measured_as_their_values_are(dtype, n):
    x = (cloud(5, n, 64) * 10).to(dtype)
    same(of(x).compute(), expected(x.double()))
    single = expected(x.float())
    for name, value in of(x).compute().items():
        assert value == pytest.approx(single[name], rel=2e-5), name


def test_known_inputs():
    constant = of(torch.full((300, 16), 0.1)).compute()
    assert constant["std"] == pytest.approx(0, abs=1e-12)
    assert constant["effective_rank"] == constant["participation_ratio"] == 1
    assert constant["m_o"] == pytest.approx(1)
    assert constant["uniformity"] == pytest.approx(0, abs=1e-12)
    assert sum(constant["spectrum"]) == 0
    noise = of(cloud(0, 20000, 16)).compute()
    assert noise["std"] == pytest.approx(1, abs=1e-3)
    assert noise["raw_std"] == pytest.approx(1, abs=0.01)
    assert noise["effective_rank"] == pytest.approx(16, rel=1e-3)
    assert noise["uniformity"] == pytest.approx(float(d.uniformity(cloud(1, 4000, 16))), abs=0.05)
    thin = of(cloud(0, 500, 3) @ torch.linalg.qr(cloud(1, 128, 3))[0].T).compute()
    assert thin["effective_rank"] == pytest.approx(3, abs=0.01)
    assert len(thin["spectrum"]) == 128
    assert sum(value > 0 for value in thin["spectrum"]) == 3


def test_one_row_zero_rows_and_none():
    one = of(torch.ones(1, 3)).compute()
    assert (one["count"], one["std"], one["effective_rank"], one["m_r"]) == (1, 0, 1, 0)
    assert math.isnan(one["uniformity"])
    assert math.isnan(one["alpha_req"])
    some = of(torch.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [0.0, 5.0]])).compute()
    assert (some["zero_rows"], some["norm"]) == (0.5, 2.5)
    none = of(torch.ones(0, 3)).compute()
    assert none["count"] == 0
    assert none["spectrum"] == []
    assert all(math.isnan(v) for k, v in none.items() if k not in ("count", "dim", "spectrum"))
    assert none.keys() == one.keys()


def test_rows_that_are_not_finite_are_counted_and_left_out():
    x = cloud(0)
    y = x.clone()
    y[3, 1], y[7, 0], y[8] = torch.nan, torch.inf, -torch.inf
    found = of(y[:5], y[5:]).compute()
    assert found.pop("finite") == 37 / 40
    assert found.pop("count") == 40
    rest = expected(x[[i for i in range(40) if i not in (3, 7, 8)]])
    same(found, {k: v for k, v in rest.items() if k not in ("finite", "count")})
    lost = of(torch.full((4, 2), torch.nan)).compute()
    assert (lost["count"], lost["finite"]) == (4, 0)
    assert math.isnan(lost["std"])


@pytest.mark.parametrize("x", [torch.ones(3, 4), torch.ones(5), torch.ones(2, 3, 5)])
def test_rows_of_another_width_are_refused(x):
    with pytest.raises(ValueError, match="width 5"):
        d.VectorStatistics(5).update(x)
    with pytest.raises(ValueError, match="width 5"):
        d.PairStatistics(5).update(x, x)
    with pytest.raises(ValueError, match=r"\(N, V, 5\)"):
        d.GroupStatistics(5).update(x[..., :4])


def test_memory_does_not_grow_with_the_rows(monkeypatch):
    monkeypatch.setattr(statistics, "VALUES_AT_ONCE", 64)
    found = d.VectorStatistics(4)
    for i in range(300):
        found.update(cloud(i, 50, 4))
    held = sum(len(rows) for scatter in (found._raw, found._unit) for rows in scatter._held)
    assert held <= 2 * 4
    assert found._sample.rows.shape == (1024, 4)
    assert found.compute()["count"] == 15000
    same(found.compute(), of(torch.cat([cloud(i, 50, 4) for i in range(300)])).compute())


def test_the_sample_is_fair_to_time_and_to_equal_rows():
    found = of(torch.cat([torch.zeros(5000, 2), cloud(0, 5000, 2)]))
    zeros = int((found._sample.rows == 0).all(dim=1).sum())
    assert abs(zeros - 512) < 4 * math.sqrt(1024) / 2
    x = cloud(1, 3000, 2)
    twice = of(x)
    twice.merge(of(-x))
    keys = twice._sample.keys
    assert len(keys.unique()) == 1024
    first = {tuple(row) for row in twice._sample.rows.tolist()}
    assert sum((-a, -b) in first for a, b in first) / 1024 < 0.3  # drawn for themselves, not as pairs


def test_alignment_of_pairs():
    x1, x2 = cloud(0), cloud(1)
    a, b = d.PairStatistics(6), d.PairStatistics(6)
    a.update(x1[:7], x2[:7])
    b.update(x1[7:], x2[7:])
    a.merge(b)
    assert a.compute() == {
        "count": 40,
        "finite": 1,
        "alignment": pytest.approx(float(d.alignment(x1, x2)), rel=1e-12),
    }
    b.update(torch.full((2, 6), torch.nan), x1[:2])
    assert b.compute()["finite"] == 33 / 35
    assert b.compute()["alignment"] == pytest.approx(float(d.alignment(x1[7:], x2[7:])))
    assert math.isnan(d.PairStatistics(6).compute()["alignment"])


@given(st.integers(0, 2**31), st.integers(2, 30), st.integers(0, 30))
def test_lidar_of_groups(seed, n, cut):
    x = cloud(seed, n)[:, None] + 0.5 * cloud(seed + 1, 3 * n).view(n, 3, 6)
    a, b = d.GroupStatistics(6), d.GroupStatistics(6)
    a.update(x[:cut])
    b.update(x[cut:])
    b.merge(a)
    assert b.compute()["lidar"] == pytest.approx(float(d.lidar(x)), rel=1e-9)
    a.update(torch.full((2, 3, 6), torch.nan))
    assert a.compute()["finite"] == min(cut, n) / (min(cut, n) + 2)


RANK = """
import json, sys
import torch, torch.distributed as dist
from stopgrad.diagnostics import GroupStatistics, PairStatistics, VectorStatistics
rank, store, out = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
x = torch.randn(1300, 8, generator=torch.Generator().manual_seed(0)).double() + 1
mine = x[:1100] if rank else x[1100:]
found = {}
for name, rows in {"large": mine, "small": mine[:3], "one-sided": mine[: 50 * rank]}.items():
    vectors = VectorStatistics(8)
    for batch in rows.split(90):
        vectors.update(batch)
    vectors.reduce()
    found[name] = vectors.compute()
pairs, groups = PairStatistics(8), GroupStatistics(8)
pairs.update(mine, mine.flip(1))
groups.update(mine.view(-1, 2, 8))
pairs.reduce(), groups.reduce()
found |= {"pairs": pairs.compute(), "groups": groups.compute()}
json.dump(found, open(out, "w"))
dist.destroy_process_group()
"""


def test_two_processes_reduce_to_what_one_has(tmp_path):
    outs = [tmp_path / f"{rank}.json" for rank in range(2)]
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", RANK, str(rank), str(tmp_path / "store"), str(outs[rank])],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.PIPE, text=True,
        )
        for rank in range(2)
    ]  # fmt: skip
    for run in runs:
        assert run.wait(timeout=120) == 0, run.stderr.read()
    first, second = (json.loads(out.read_text()) for out in outs)
    assert json.dumps(first) == json.dumps(second)
    x = torch.randn(1300, 8, generator=torch.Generator().manual_seed(0)).double() + 1
    uniformity = first["large"].pop("uniformity")
    alone = expected(x)
    assert uniformity == pytest.approx(alone.pop("uniformity"), abs=0.02)
    same(first["large"], alone)
    same(first["small"], expected(torch.cat([x[1100:1103], x[:3]])))
    same(first["one-sided"], expected(x[:50]))
    assert first["pairs"]["alignment"] == pytest.approx(float(d.alignment(x, x.flip(1))))
    assert first["groups"]["lidar"] == pytest.approx(float(d.lidar(x.view(-1, 2, 8))), rel=1e-9)
    assert first["groups"]["count"] == 650
