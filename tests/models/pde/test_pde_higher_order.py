"""Equations of third and fourth order: beams, and waves that disperse."""

import equinox as eqx
import jax
import numpy as np
import pytest

from probkit.models import pde
from reference.pde import error, gaussian

KEY = jax.random.key(0)
MODEL = pde.SpectralGP(calibrated=False)
π = np.pi


def test_the_size_of_a_residual_is_that_of_the_kernel():
    problem = pde.Problem(
        {"x": (0, 2)},
        lambda u, x: u.dxxxx + u.dxxx + u.dx + u - np.sin(9 * x),
        pde.Dirichlet(0.0),
        shape=30,
    )
    sites = {k: np.asarray(v) for k, v in MODEL.start_sites(problem).items()}
    parts = ("weight_x", "frequency_x", "lengthscale_x")
    kernel = gaussian(*(sites[name] for name in parts))
    orders = (0, 1, 3, 4)
    assert problem.equation.orders == tuple((n,) for n in orders)
    expected = [[(-1) ** j * kernel(0.0, i + j) for j in orders] for i in orders]
    found = eqx.filter_jit(MODEL.collocation)(problem).covariances
    units = np.sqrt(np.diag(expected))
    np.testing.assert_allclose(
        found / units / units[:, None], expected / units / units[:, None], atol=1e-12
    )


FIXED = [pde.Dirichlet(0.0, on="x-"), pde.Neumann(0.0, on="x-")]
# The load of a beam of unit stiffness, its supports, and its shape.
BEAMS = {
    "clamped, under its own weight": (
        lambda u, x: u.dxxxx - 24,
        [pde.Dirichlet(0.0, on="x"), pde.Neumann(0.0, on="x")],
        lambda x: x**2 * (1 - x) ** 2,
    ),
    "supported, under a wave": (
        lambda u, x: u.dxxxx - np.sin(3 * π * x),
        [pde.Dirichlet(0.0, on="x"), pde.Derivative(0.0, order=2, on="x")],
        lambda x: np.sin(3 * π * x) / (3 * π) ** 4,
    ),
    "fixed at one end, with a weight at the other": (
        lambda u, x: u.dxxxx,
        [
            *FIXED,
            pde.Derivative(0.0, order=2, on="x+"),
            pde.Derivative(-6.0, order=3, on="x+"),
        ],
        lambda x: 3 * x**2 - x**3,
    ),
}


@pytest.mark.parametrize("residual, told, exact", BEAMS.values(), ids=BEAMS.keys())
def test_beams_bend_as_they_should(residual, told, exact):
    beam = pde.Problem({"x": (0, 1)}, residual, told, shape=30)
    assert error(beam, exact) < 1e-8


def test_a_beam_vibrates_at_its_frequency():
    told = [
        pde.Initial(lambda p: np.sin(π * p.x), velocity=0.0),
        pde.Dirichlet(0.0, on="x"),
        pde.Derivative(0.0, order=2, on="x"),
    ]
    beam = pde.Problem(
        {"x": (0, 1), "t": (0, 0.3)}, lambda u, p: u.dtt + u.dxxxx, told, shape=20
    )
    model = pde.SpectralGP(rank=18, calibrated=False)
    assert error(beam, lambda p: np.sin(π * p.x) * np.cos(π**2 * p.t), model) < 1e-6


def test_waves_of_third_order_go_round_a_ring():
    def exact(p):
        return np.sin(p.x + p.t)

    ring = pde.Problem(
        {"x": (0, 2 * π), "t": (0, 1)},
        lambda u, p: u.dt + u.dxxx,
        [pde.Initial(exact), pde.Periodic("x")],
        shape=16,
    )
    assert error(ring, exact, pde.SpectralGP(rank=12, calibrated=False)) < 1e-6


def test_a_soliton_keeps_its_shape():
    def exact(p):
        return 3 / np.cosh((p.x - p.t) / 2) ** 2

    def slope(p):
        return -exact(p) * np.tanh((p.x - p.t) / 2)

    told = [pde.Initial(exact), pde.Dirichlet(exact, on="x"), pde.Neumann(slope, on="x+")]
    soliton = pde.Problem(
        {"x": (-2, 3), "t": (0, 1)},
        lambda u, p: u.dt + u * u.dx + u.dxxx,
        told,
        shape=18,
    )
    assert error(soliton, exact, pde.SpectralGP(rank=18, calibrated=False)) < 1e-4
