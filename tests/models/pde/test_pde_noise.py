"""Observations whose noise is not the same for all: closed forms and equalities."""

import functools

import equinox as eqx
import jax
import numpy as np
import pytest

from probkit.model.density import log_likelihood
from probkit.models import pde
from probkit.models.pde.profile import candidates, scored
from probkit.models.pde.solution import Misfit

MODEL = pde.SpectralGP(equation_sd=1e-5)
SD = np.array([0.05, 0.2, 0.1, 0.4, 0.1])
T = np.array([0.1, 0.3, 0.55, 0.7, 0.95])
Y = np.array([1.1, 0.6, 0.7, 0.2, 0.35])


def decay(points, values, noise_sd, **more):
    return pde.Problem(
        {"t": (0, 1)},
        lambda u, t: u.dt + 1.2 * u,
        observations=pde.Observations(points, values, noise_sd),
        shape=12,
        **more,
    )


@eqx.filter_jit
def posterior(problem, sites):
    found = MODEL.integrated(sites, problem)
    return found.derivative(problem.grid, (0,)), found.sd_on(problem.grid)


@eqx.filter_jit
def facts(problem, sites):
    misfit = Misfit.of(MODEL.integrated(sites, problem), problem)
    logs = log_likelihood(MODEL, problem, sites)["values"].sum()
    return misfit, logs, MODEL.pointwise(sites, problem)["values"]


@functools.cache
def start():
    return MODEL.start_sites(decay(T, Y, SD))


def test_two_observations_are_one_of_a_smaller_sd():
    twice = decay(np.repeat(T, 2), np.repeat(Y, 2), np.repeat(SD, 2))
    once = decay(T, Y, SD / np.sqrt(2))
    for one, other in zip(posterior(twice, start()), posterior(once, start()), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-7)


def test_the_solution_is_that_of_weighted_least_squares():
    # All solutions are multiples of exp(-1.2 t), and the kernel hardly minds which.
    wide = start() | {"weight_t": 1e4 * start()["weight_t"]}
    mean, sd = posterior(decay(T, Y, SD), wide)
    e, t = np.exp(-1.2 * T), np.linspace(0, 1, 12)
    variance = 1 / np.sum(e**2 / SD**2)
    best = variance * np.sum(e * Y / SD**2)
    np.testing.assert_allclose(mean, best * np.exp(-1.2 * t), rtol=1e-3)
    np.testing.assert_allclose(sd, np.sqrt(variance) * np.exp(-1.2 * t), rtol=1e-3)


def test_what_is_said_of_the_observations_is_in_units_of_their_noise():
    problem = decay(T, Y, SD)
    misfit, logs, each = facts(problem, start())
    mean = np.interp(T, problem.grid[0], posterior(problem, start())[0])
    left = (Y - mean) / SD
    assert float(misfit.chi_square) == pytest.approx(np.mean(left**2), rel=0.02)
    explained = 1 - np.sum(left**2) / np.sum((Y / SD) ** 2)
    assert float(misfit.explained) == pytest.approx(explained, abs=1e-3)
    # By the chain rule: of all, less that of all the others, where the first says nothing.
    vague = facts(decay(T, Y, np.array([1e6, *SD[1:]])), start())[1]
    others = float(vague) + np.log(1e6 * np.sqrt(2 * np.pi))
    assert float(each[0]) == pytest.approx(float(logs) - others, rel=1e-6)


def test_equal_sds_are_one():
    one, many = decay(T, Y, 0.1), decay(T, Y, np.full(5, 0.1))
    for a, b in zip(
        *(jax.tree.leaves(facts(p, start())) for p in (one, many)), strict=True
    ):
        np.testing.assert_allclose(a, b, rtol=1e-9)


def test_candidates_are_compared_by_the_evidence():
    problem = decay(T, Y, SD)
    tried = candidates(MODEL, problem)
    found = scored(MODEL, problem, tried)[0]
    exact = [facts(problem, jax.tree.map(lambda a, k=k: a[k], tried))[1] for k in (0, 1)]
    assert float(found[0] - found[1]) == pytest.approx(float(exact[0] - exact[1]), rel=1e-6)
