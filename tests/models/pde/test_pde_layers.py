"""Thin layers, kinks and jumps: solved with more waves, or flagged."""

from functools import cache

import jax
import numpy as np
import pytest

import probkit as pk
from probkit.models import pde

KEY = jax.random.key(0)
AT = np.random.default_rng(0).uniform(0, 1, 200)


def closed(problem, model=None, **settings):
    model = model or pde.SpectralGP()
    return pk.fit(
        model, problem, pde.Closed(**settings), key=KEY, throw=False, progress=False
    )


def verdicts(fit):
    return {check.name: check.ok for check in pk.diagnose(fit)}


def band(fit, at):
    found = pk.predict(fit, at, key=KEY)
    return found.u_mean.values.reshape(-1), found.u_sd.values.reshape(-1)


def outflow(ε):
    """-ε u'' + u' = 1 with zero ends has a layer of width ε at x = 1."""
    problem = pde.Problem(
        {"x": (0, 1)},
        lambda u, x: -ε * u.dxx + u.dx - 1.0,
        pde.Dirichlet(0.0),
        shape=200,
    )
    return problem, AT - (np.exp((AT - 1) / ε) - np.exp(-1 / ε)) / (1 - np.exp(-1 / ε))


@cache
def thin():
    problem, truth = outflow(0.01)
    return closed(problem), truth


def test_a_thin_layer_gets_more_waves():
    fit, truth = thin()
    assert fit.result == "successful" and pk.diagnose(fit).ok
    assert fit.model.num_nodes > 24
    mean, sd = band(fit, AT)
    assert np.linalg.norm(mean - truth) < 1e-7 * np.linalg.norm(truth)
    assert np.mean(np.abs(mean - truth) < 1.96 * sd) > 0.9


def test_a_fit_with_more_waves_is_saved(tmp_path):
    fit, _ = thin()
    again = pk.load(pk.save(fit, tmp_path / "fit.nc"))
    assert again.model.num_nodes == fit.model.num_nodes
    assert pk.predict(again, AT, key=KEY).equals(pk.predict(fit, AT, key=KEY))


def test_a_smooth_solution_keeps_the_waves_it_has():
    problem, truth = outflow(0.3)
    fit = closed(problem)
    assert fit.model.num_nodes is None and pk.diagnose(fit).ok
    mean, _ = band(fit, AT)
    assert np.linalg.norm(mean - truth) < 1e-8 * np.linalg.norm(truth)


def test_the_number_of_waves_that_a_user_gives_is_kept():
    fit = closed(outflow(0.01)[0], pde.SpectralGP(num_nodes=24), max_steps=20)
    assert fit.model.num_nodes == 24
    assert not pk.diagnose(fit).ok and fit.result != "successful"


def test_a_layer_thinner_than_the_grid_is_flagged_on_the_grid_that_a_kernel_is_for():
    # The lengthscale is one of the axis as it is, so that the axis is not stretched.
    model = pde.SpectralGP(lengthscales={"x": 0.5})
    fit = closed(outflow(0.001)[0], model, learn=False)
    assert fit.result != "successful" and not fit.data.layers
    assert not verdicts(fit)["residual between the points"]


@pytest.mark.parametrize(("width", "is_jump"), [(None, True), (0.1, False)])
def test_a_jump_of_the_leading_coefficient_is_flagged(width, is_jump):
    def conducts(x):
        if width is None:
            return np.where(x < 0.5, 1.14, 0.01)
        return 0.575 - 0.565 * np.tanh((x - 0.5) / width)

    ends = [pde.Dirichlet(0.0, on="x-"), pde.Dirichlet(1.0, on="x+")]
    fit = closed(
        pde.Problem({"x": (0, 1)}, lambda u, x: conducts(x) * u.dxx, ends, shape=60)
    )
    assert verdicts(fit)["jump of the leading coefficient"] is not is_jump


def test_a_jump_is_seen_in_two_dimensions():
    def conducts(p, jumps):
        return 1 + (p.y > 0.5) if jumps else 1.5 + 0.5 * np.sin(p.y)

    for jumps in (True, False):
        problem = pde.Problem(
            {"x": (0, 1), "y": (0, 1)},
            lambda u, p, jumps=jumps: conducts(p, jumps) * (u.dxx + u.dyy),
            pde.Dirichlet(lambda p: p.x),
            shape=12,
        )
        fit = closed(problem, pde.SpectralGP(rank=6))
        assert verdicts(fit)["jump of the leading coefficient"] is not jumps


def test_both_solutions_of_a_band_do_not_miss_it_in_the_same_way():
    # With as many waves for both, the band held 32 % of the points.
    ε = 0.1
    problem = pde.Problem(
        {"x": (0, 1)}, lambda u, x: -(ε**2) * u.dxx + u - 1, pde.Dirichlet(0.0), shape=200
    )
    truth = 1 - (np.exp(-AT / ε) + np.exp((AT - 1) / ε)) / (1 + np.exp(-1 / ε))
    mean, sd = band(closed(problem), AT)
    assert 0.85 < np.mean(np.abs(mean - truth) < 1.96 * sd) <= 1


def test_a_search_that_has_not_settled_is_no_failure_if_the_equation_is_solved():
    problem, truth = outflow(0.3)
    fit = closed(problem, max_steps=2)
    assert not fit.facts["settled"] and fit.result == "successful"
    mean, _ = band(fit, AT)
    assert np.linalg.norm(mean - truth) < 1e-4 * np.linalg.norm(truth)
