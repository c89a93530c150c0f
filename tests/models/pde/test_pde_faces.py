"""Conditions on faces that are more than a value: sums of u and its derivatives."""

import equinox as eqx
import jax
import numpy as np
import pytest

import probkit as pk
from probkit.models import pde

KEY = jax.random.key(0)
MODEL = pde.SpectralGP(calibrated=False)


@eqx.filter_jit
def solved(model, problem):
    """The solution on the grid, with the kernel that the problem's data tell of."""
    found = model.solution(model.start_sites(problem), problem)
    return found.derivative(problem.grid, (0,) * len(problem.axes))


def error(problem, exact, model=MODEL):
    """The largest error of the solution, relative to its largest value."""
    truth = exact(problem.coordinates())
    return np.abs(solved(model, problem) - truth).max() / np.abs(truth).max()


# Robin


def test_a_fin_that_loses_heat_at_its_tip():
    # u'' = m² u, u(0) = 100, u'(1) + w u(1) = 0: cosh m(1-x) + (w/m) sinh m(1-x)
    m, w = 3.0, 2.0

    def exact(x):
        at = np.cosh(m * (1 - x)) + w / m * np.sinh(m * (1 - x))
        return 100 * at / (np.cosh(m) + w / m * np.sinh(m))

    told = [pde.Dirichlet(100.0, on="x-"), pde.Robin(0.0, weight=w, on="x+")]
    fin = pde.Problem({"x": (0, 1)}, lambda u, x: u.dxx - m**2 * u, told, shape=30)
    assert error(fin, exact) < 1e-8


def test_a_wall_between_two_rooms():
    # A straight line. The derivative is along the axis at both ends, so that a wall which
    # loses heat has a negative weight at its low end.
    k, left, right, h_left, h_right = 0.5, 20.0, -5.0, 8.0, 25.0
    flow = (left - right) / (1 / h_left + 0.3 / k + 1 / h_right)
    told = [
        pde.Robin(-h_left * left / k, weight=-h_left / k, on="x-"),
        pde.Robin(h_right * right / k, weight=lambda x: h_right / k + 0 * x, on="x+"),
    ]
    wall = pde.Problem({"x": (0, 0.3)}, lambda u, x: k * u.dxx, told, shape=30)
    assert error(wall, lambda x: left - flow / h_left - flow / k * x) < 1e-8
    # u is of the size of the rooms' temperatures.
    assert 15 < float(wall.size) < 25


def heat(p):
    return np.exp(-p.t) * np.cos(2 * p.x) + p.x


def test_heat_with_convection_that_changes_in_time():
    def slope(p):
        return 1 - 2 * np.exp(-p.t) * np.sin(2 * p.x)

    told = [
        pde.Initial(heat),
        pde.Robin(lambda p: slope(p) - 2 * heat(p), weight=-2.0, on="x-"),
        pde.Robin(
            lambda p: slope(p) + (1 + p.t) * heat(p), weight=lambda p: 1 + p.t, on="x+"
        ),
    ]
    problem = pde.Problem(
        {"x": (0, 1), "t": (0, 1)},
        lambda u, p: u.dt - u.dxx - 3 * np.exp(-p.t) * np.cos(2 * p.x),
        told,
        shape=16,
    )
    model = pde.SpectralGP(rank=10, calibrated=False)
    assert error(problem, heat, model) < 1e-5


def test_the_method_of_the_paper_refuses_it():
    problem = pde.Problem(
        {"x": (0, 1)}, lambda u, x: u.dxx - 1, pde.Robin(0.0, weight=1.0), shape=8
    )
    with pytest.raises(ValueError, match=r"`pde.Robin` or an empty .*`pde.SpectralGP`"):
        pk.fit(pde.GridGP(), problem, pde.Adam(num_steps=1), key=KEY)
