"""Coefficients that vary along an axis."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import cumulative_trapezoid

import probkit as pk
from doors import refused
from probkit.models import pde

KEY = jax.random.key(0)
NOISE = 0.01
AT = np.sort(np.random.default_rng(0).uniform(0, 1, 20))


def slopes(unknown=None, **more):
    """u' = k(x) with u(0) = 0 is linear in k."""
    noise = NOISE * np.random.default_rng(1).normal(size=len(AT))
    values = AT + 0.125 * (1 - np.cos(4 * AT)) + noise
    return pde.Problem(
        {"x": (0, 1)},
        lambda u, x, c: u.dx - c.k,
        pde.Dirichlet(0.0, on="x-"),
        shape=24,
        observations=pde.Observations(AT, values, noise_sd=NOISE),
        unknown={"k": unknown or pde.Varying(1.0, sd=0.5, lengthscale=0.4)},
        **more,
    )


@cache
def fitted():
    model = pde.SpectralGP(equation_sd=1e-6, num_nodes=12)
    method = pde.Closed(num_draws=400, num_starts=1)
    return pk.fit(model, slopes(), method, key=KEY)


def test_functions_have_the_kernel_of_the_prior():
    (k,) = slopes().varying
    x = np.linspace(0, 1, 31)
    functions = k.functions(x)
    wanted = 0.25 * np.exp(-0.5 * ((x[:, None] - x) / 0.4) ** 2)
    np.testing.assert_allclose(functions @ functions.T, wanted, atol=1e-4)


def test_the_posterior_is_that_of_the_linear_model():
    fit = fitted()
    found = pk.recover(fit, key=KEY)["k"]
    assert found.dims == ("chain", "draw", "x")
    (k,) = fit.data.varying
    fine = np.linspace(0, 1, 4001)
    zero = np.zeros((1, k.rank))
    whole = np.concatenate([zero, cumulative_trapezoid(k.functions(fine), fine, axis=0)])
    A = np.stack([np.interp(AT, fine, column) for column in whole.T], 1)
    cov = np.linalg.inv(np.eye(k.rank) + A.T @ A / NOISE**2)
    mean = cov @ A.T @ (fit.data.values - AT) / NOISE**2
    Φ = k.functions(np.asarray(fit.data.grid[0]))
    sd = np.sqrt(np.diag(Φ @ cov @ Φ.T))
    draws = found.values[0]
    # The first draw is the centre, to which the kernel's own uncertainty adds nothing.
    np.testing.assert_allclose(draws[0], 1 + Φ @ mean, atol=2e-3 * sd.max())
    # 399 draws have an sd to 4 % or so: four of these.
    np.testing.assert_allclose(draws[1:].std(0), sd, rtol=0.15)


def test_a_fit_is_saved(tmp_path):
    again = pk.load(pk.save(fitted(), tmp_path / "fit.nc"))
    assert again.data.varying == fitted().data.varying
    assert pk.recover(again, key=KEY).equals(pk.recover(fitted(), key=KEY))


def test_a_product_is_differentiated():
    problem = pde.Problem(
        {"x": (0, 1)},
        lambda u, x, c: (c.k * u.dx).dx + 1,
        pde.Dirichlet(0.0),
        shape=40,
        observations=pde.Observations(AT, AT * (1 - AT)),
        unknown={"k": pde.Varying(2.0, sd=0.5, lengthscale=0.5)},
    )
    (k,) = problem.varying
    x, θ = np.linspace(0, 1, 40), np.random.default_rng(0).normal(size=k.rank)
    u = {(1,): jnp.asarray(1 - 2 * x), (2,): jnp.full(40, -2.0)}
    found = problem.equation(u, dict(zip(k.weights, θ, strict=True)))
    values = lambda x: 2 + k.functions(x) @ θ  # noqa: E731
    h = 1e-5
    slope = (values(x + h) - values(x - h)) / (2 * h)
    wanted = values(x) * -2 + slope * (1 - 2 * x) + 1
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_it_may_vary_along_one_axis_of_two():
    problem = pde.Problem(
        {"x": (0, 1), "t": (0, 2)},
        lambda u, p, c: u.dt - c.k * u.dxx + c.rate * u,
        pde.Dirichlet(0.0, on="x"),
        shape=8,
        observations=pde.Observations([[0.5, 1.0], [0.2, 0.4]], [1.0, 2.0]),
        unknown={"k": pde.Varying(1.0, 0.2, 1.5, along="t"), "rate": (0, 1)},
    )
    assert [name for name, _, _ in problem.numbers] == ["rate"]
    assert pde.SpectralGP().dims(problem)["k"] == ("t",)


REFUSED = {
    "an axis": (dict(along="y"), r"along='y'\)` in `Problem\(unknown=\{'k'.*they are `x`"),
    "an sd": (dict(sd=-1.0), r"Varying\(sd=-1.0\).*positive"),
    "a mean": (dict(mean=[1.0, 2.0]), r"Varying\(mean=.*takes one number"),
    "a short lengthscale": (dict(lengthscale=0.01), "too short for an axis from 0 to 1"),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("given, words", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused(given, words):
    settings = dict(mean=1.0, sd=0.5, lengthscale=0.4) | given
    refused(lambda: slopes(pde.Varying(**settings)), words)


def test_a_name_of_its_weights_is_refused():
    def problem():
        return pde.Problem(
            {"x": (0, 1)},
            lambda u, x, c: u.dx - c.k - c.k_0,
            pde.Dirichlet(0.0, on="x-"),
            shape=24,
            observations=pde.Observations(AT, AT),
            unknown={"k": pde.Varying(1.0, 0.5, 0.4), "k_0": (0, 1)},
        )

    refused(problem, "'k_0', which is a weight")
