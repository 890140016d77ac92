import math

import numpy as np
import pytest
import torch

from stopgrad.theory import solver
from stopgrad.theory.matrix_solver import integrate


def grow(t, y, parameters):
    return (parameters[0] * y[0],)


def swing(t, y, parameters):
    return y[1], -(parameters[0] ** 2) * y[0]


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def test_growth_and_decay_keep_their_relative_error_over_many_decades():
    rates, t_end = column(1.0, -1.0, -5.0, 0.0), column(30.0, 30.0, 30.0, 30.0)
    end = solver.solve(grow, (torch.ones(4, dtype=torch.float64),), (rates,), t_end, rtol=1e-10)
    torch.testing.assert_close(end.y[0], torch.exp(rates * t_end), rtol=1e-8, atol=0)
    assert torch.equal(end.t, t_end)


def test_each_problem_has_its_own_end():
    t_end = column(0.0, 0.1, 1.0, 25.0)
    start = (torch.zeros(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
    end = solver.solve(swing, start, (torch.full_like(t_end, 2.0),), t_end, rtol=1e-10)
    torch.testing.assert_close(end.y[0], torch.sin(2 * t_end) / 2, rtol=1e-7, atol=1e-9)
    assert end.steps.tolist() == sorted(end.steps.tolist())
    assert end.steps[0] == 0


def test_the_order_of_a_step_is_eight():
    """Halving the step divides the error of one step by 2^9."""
    y, t = (column(0.1),), column(0.0)

    def logistic(t, y, parameters):
        return (y[0] * (1 - y[0]),)

    def error(h: float) -> float:
        new, _ = solver._step(logistic, t, column(h), y, logistic(t, y, ()), ())
        return abs(new[0].item() - 0.1 * math.exp(h) / (0.9 + 0.1 * math.exp(h)))

    assert math.log2(error(0.5) / error(0.25)) == pytest.approx(9, abs=0.5)


def test_a_smaller_tolerance_costs_steps_and_buys_digits():
    t_end = column(20.0)
    ends = [
        solver.solve(swing, (column(0.0), column(1.0)), (column(1.0),), t_end, rtol=rtol)
        for rtol in (1e-5, 1e-9)
    ]
    errors = [abs(end.y[0].item() - math.sin(20)) for end in ends]
    assert errors[1] < errors[0] / 1e3
    assert ends[1].steps > ends[0].steps


def test_steps_that_fail_are_taken_again():
    """Nothing happens until a switch turns on: the step that meets it has grown far too long."""

    def switch(t, y, parameters):
        return (torch.sigmoid(50 * (t - parameters[0])),)

    when = torch.linspace(2, 8, 40, dtype=torch.float64)
    end = solver.solve(switch, (torch.ones_like(when),), (when,), torch.full_like(when, 10.0), rtol=1e-9)
    torch.testing.assert_close(end.y[0], 11 - when, rtol=1e-8, atol=0)


def test_a_problem_that_stops_leaves_the_others_alone():
    rates = column(0.5, 1.0, -1.0)

    def stop(t, y, f, parameters):
        return y[0] > 5

    end = solver.solve(
        grow, (torch.ones(3, dtype=torch.float64),), (rates,), torch.full_like(rates, 10.0), stop=stop
    )
    assert (end.y[0][:2] > 5).all()
    assert (end.t[:2] < 10).all()
    torch.testing.assert_close(end.y[0], torch.exp(rates * end.t), rtol=1e-7, atol=0)
    assert end.t[2] == 10


def test_the_lowest_value_is_found_between_steps():
    def watch(t, y, parameters):
        return y[0], y[1]

    rates = column(0.7, 1.0, 3.0)
    start = (torch.zeros(3, dtype=torch.float64), torch.ones(3, dtype=torch.float64))
    end = solver.solve(swing, start, (rates,), column(9.0, 9.0, 9.0), rtol=1e-10, watch=watch)
    torch.testing.assert_close(end.lowest, -1 / rates, rtol=1e-7, atol=0)


def test_the_result_does_not_depend_on_the_company(monkeypatch):
    rates = torch.linspace(0.1, 3, 50, dtype=torch.float64)
    start, t_end = (torch.zeros_like(rates), torch.ones_like(rates)), torch.full_like(rates, 10.0)
    together = solver.solve(swing, start, (rates,), t_end)
    done = []
    monkeypatch.setattr(solver, "CHUNK_CPU", 7)
    apart = solver.solve(swing, start, (rates,), t_end, progress=done.append)
    torch.testing.assert_close(together.y[0], apart.y[0], rtol=1e-12, atol=1e-14)
    assert sum(done) == 50


def test_what_cannot_be_solved_says_so():
    def explode(t, y, parameters):
        return (y[0] ** 2,)

    with pytest.raises(ArithmeticError, match="near t = 1"):
        solver.solve(explode, (column(1.0),), (column(0.0),), column(2.0))


@pytest.mark.slow
def test_compiled_equals_eager():
    rates = torch.linspace(0.1, 3, 50, dtype=torch.float64)
    start, t_end = (torch.zeros_like(rates), torch.ones_like(rates)), torch.full_like(rates, 10.0)
    # generated code rounds otherwise, which changes the steps and so the error that a step may have
    eager = solver.solve(swing, start, (rates,), t_end, rtol=1e-12, compiled=False)
    compiled = solver.solve(swing, start, (rates,), t_end, rtol=1e-12, compiled=True)
    torch.testing.assert_close(eager.y[0], compiled.y[0], rtol=1e-10, atol=1e-12)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_equals_the_cpu():
    rates = torch.linspace(0.1, 3, 50, dtype=torch.float64)
    start, t_end = (torch.zeros_like(rates), torch.ones_like(rates)), torch.full_like(rates, 10.0)
    cpu = solver.solve(swing, start, (rates,), t_end)
    cuda = solver.solve(swing, tuple(y.cuda() for y in start), (rates.cuda(),), t_end.cuda())
    torch.testing.assert_close(cuda.y[0].cpu(), cpu.y[0], rtol=1e-10, atol=1e-12)


def test_a_solution_that_nobody_wants_is_given_up():
    asked = []

    def unwanted():
        asked.append(None)
        return len(asked) == 3

    problem = (swing, (column(0.0), column(1.0)), (column(2.0),), column(1e3))
    with solver.given_up_once(unwanted), pytest.raises(solver.GivenUp):
        solver.solve(*problem)
    assert len(asked) == 3
    solver.solve(*problem[:3], column(1.0))
    assert len(asked) == 3


def test_the_course_of_one_problem_is_given_up_too():
    asked = []

    def rates(t, y, parameters, of):
        asked.append(t)
        return [-y[0]]

    times = torch.tensor([0.0, 1e3], dtype=torch.float64)
    with solver.given_up_once(lambda: len(asked) >= 20), pytest.raises(solver.GivenUp):
        solver.course(rates, (column(1.0),), (), times, rtol=1e-9)
    assert len(asked) == 20


def test_a_flow_of_matrices_is_given_up_too():
    asked = []

    def rates(blocks):
        asked.append(None)
        return (-blocks[0],)

    with solver.given_up_once(lambda: len(asked) > 20), pytest.raises(solver.GivenUp):
        integrate(rates, (np.eye(2),), np.array([0.0, 1e3]), 1e-9)
    assert len(asked) < 40  # it looks once a step, which has twelve stages
