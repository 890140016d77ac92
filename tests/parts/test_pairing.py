"""The grammar of nodes, and what is no node."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from stopgrad import cli
from stopgrad.parts.pairing import CROSS_VIEW, INVERSE, MIRROR, SYMMETRIC, Node, Pair, both_ways, raft_pairs

nodes = st.builds(
    Node,
    functions=st.lists(st.sampled_from(["sg", "p", "inv"]), max_size=5).map(tuple),
    letter=st.sampled_from("zpt"),
    view=st.integers(1, 9),
)
NO_NODES = [
    "", "q1", "z", "1", "z0", "z10", "zz1", "1z", "Z1", "z1 ", " z1", "z 1", "z1\n", "z-1", "z1.0", "z\u0661",
    "sg", "sg()", "sg(", "()", "(z1)", "sg z1", "p(z1", "p z1)", "z1)", "p(z1))", "p((z1)", "p(z1)z2",
    "p(z1,z2)", "sg(p(z1)", "relu(z1)", "SG(z1)", "z(p1)", "p1(z1)", "p(sg)", "inv1", "inv (z1)", "p()(z1)",
]  # fmt: skip


def written(node):
    """The text of a node by the grammar, inside out."""
    text = f"{node.letter}{node.view}"
    for function in reversed(node.functions):
        text = f"{function}({text})"
    return text


@given(nodes)
def test_a_node_is_what_its_text_says(node):
    assert str(node) == written(node)
    assert Node.read(written(node)) == node


@given(nodes, nodes, st.floats(-5, 5))
def test_pairs_survive_their_settings(query, key, weight):
    pair = Pair(query=str(query), key=str(key), weight=weight)
    assert Pair.model_validate(pair.model_dump(mode="json")) == pair
    assert Pair.model_validate_json(pair.model_dump_json()) == pair
    assert str(pair) == f"{weight:g} d({query}, {key})"


@given(nodes, nodes)
def test_both_ways_exchanges_the_views(query, key):
    first, second = both_ways(str(query), str(key), 0.25)
    other = {1: 2, 2: 1}
    assert (first.query, first.key) == (str(query), str(key))
    for node, swapped in ((query, second.query), (key, second.key)):
        assert Node.read(swapped) == node._replace(view=other.get(node.view, node.view))
    assert first.weight == second.weight == 0.25
    assert both_ways(second.query, second.key)[1].query == first.query


@pytest.mark.parametrize("text", NO_NODES)
def test_what_is_no_node_is_refused(text):
    with pytest.raises(ValueError, match="a node is z, p or t and a view") as error:
        Node.read(text)
    assert "\n" not in str(error.value)
    for names in ({"query": text, "key": "t2"}, {"query": "p1", "key": text}):
        with pytest.raises(ValidationError, match="a node is z, p or t and a view"):
            Pair(**names)


@given(st.text(alphabet="zptsginv()12 0", max_size=12))
def test_whatever_is_read_is_written_the_same(text):
    try:
        node = Node.read(text)
    except ValueError:
        return
    assert str(node) == text


def test_the_named_pairings():
    expected = {
        CROSS_VIEW: "0.5 d(p1, t2), 0.5 d(p2, t1)",
        MIRROR: "0.5 d(z1, p(t2)), 0.5 d(z2, p(t1))",
        SYMMETRIC: "0.5 d(p1, sg(p2)), 0.5 d(p2, sg(p1))",
        INVERSE: "0.5 d(p(t1), t2), 0.5 d(p(t2), t1), 0.5 d(inv(sg(p1)), t1), 0.5 d(inv(sg(p2)), t2), "
        "0.5 d(p1, sg(inv(p2))), 0.5 d(p2, sg(inv(p1)))",
        raft_pairs(0.8, 0.3): "0.8 d(p1, p2), -0.15 d(p1, t1), -0.15 d(p2, t2)",
        raft_pairs(1, -2): "1 d(p1, p2), 1 d(p1, t1), 1 d(p2, t2)",
    }
    for pairs, text in expected.items():
        assert ", ".join(map(str, pairs)) == text


@pytest.mark.parametrize(
    ("pairing", "where"),
    [
        ("[{query: q1, key: t2}]", "pairing.0.query"),
        ("[{query: p1, key: t2}, {query: p2, key: 'sg(t1'}]", "pairing.1.key"),
        ("[{query: p1, key: t0}]", "pairing.0.key"),
        ("[{query: 1, key: t2}]", "pairing.0.query"),
        ("[{query: p1}]", "pairing.0.key"),
        ("[{query: p1, key: t2, wieght: 1}]", "pairing.0.wieght"),
        ("[{query: p1, key: t2, weight: much}]", "pairing.0.weight"),
        ("[{query: p1, key: t3}]", "pairing"),
        ("[]", "pairing"),
        ("p1", "pairing"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line(pairing, where, tmp_path, monkeypatch, capfd):
    arguments = ["pretrain", "--out", str(tmp_path / "run"), "--set", f"pairing={pairing}"]
    monkeypatch.setattr(sys, "argv", ["stopgrad", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    out, err = capfd.readouterr()
    assert stop.value.code == 2
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith(f"stopgrad: {where}: ")
    assert not (tmp_path / "run").exists()
