"""What monitors read, compared."""

import pytest


def numbers(reading):
    """All that was read, by name."""
    nodes = {f"{node}.{name}": value for node, own in reading.nodes.items() for name, value in own.items()}
    return nodes | reading.scalars | ({} if reading.loss is None else {"loss": reading.loss})


def assert_same(found, expected, **near):
    assert [reading.step for reading in found] == [reading.step for reading in expected]
    for one, other in zip(found, expected, strict=True):
        assert numbers(one) == pytest.approx(numbers(other), **near)


def assert_same_in_half(found, expected):
    """Up to a few roundings by 2^-8; the decay of a spectrum's smallest values is made of roundings alone."""
    for reading in (*found, *expected):
        for node in reading.nodes.values():
            del node["alpha_req"]
    assert_same(found, expected, rel=0.04, abs=2e-3)
