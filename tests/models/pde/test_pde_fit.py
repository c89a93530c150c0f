"""Fits of differential equations: kept, resumed, loaded; and settings that are refused."""

import functools

import jax
import numpy as np
import pytest

import probkit as pk
from probkit.method import loop
from probkit.method.checkpoint import Checkpoint
from probkit.models import pde

KEY = jax.random.key(0)


@functools.cache
def problem():
    return pde.Problem(
        {"x": (0, 1)},
        lambda u, x: u.dxx + 400 * np.sin(20 * x),
        pde.Dirichlet(lambda x: np.sin(20 * x)),
        shape=50,
    )


MODEL = pde.SpectralGP(num_nodes=6, calibrated=False)


@functools.cache
def fitted():
    return pk.fit(MODEL, problem(), pde.Closed(), key=KEY)


def test_a_loaded_fit_predicts_the_same(tmp_path):
    again = pk.load(pk.save(fitted(), tmp_path / "fit.nc"))
    assert again.model == fitted().model and again.method == fitted().method
    before, after = (pk.predict(f, [0.3, 0.7], key=KEY) for f in (fitted(), again))
    assert after.equals(before)
    assert again.data.equation.monomials == problem().equation.monomials


class Killed(Exception):
    pass


def test_a_killed_search_goes_on_to_the_same_end(tmp_path, monkeypatch):
    real, added = Checkpoint.add, []

    def add(self, kept, states, taken, done):
        real(self, kept, states, taken, done)
        added.append(taken)
        if len(added) == 3:
            raise Killed

    monkeypatch.setattr(loop, "CHUNK_STEPS", 3)
    monkeypatch.setattr(Checkpoint, "add", add)
    run = functools.partial(pk.fit, MODEL, problem(), pde.Closed(), key=KEY)
    with pytest.raises(Killed):
        run(checkpoint=tmp_path / "run")
    resumed = run(checkpoint=tmp_path / "run")
    # The steps before the kill were not taken again.
    assert added[3] > added[2]
    assert resumed.posterior.equals(fitted().posterior)
    whole = len(added)
    run(checkpoint=tmp_path / "run")
    assert len(added) == whole  # a finished run takes no step


def test_a_search_of_no_steps_is_no_success():
    with pytest.raises(pk.FitError, match="took no step"):
        pk.fit(MODEL, problem(), pde.Closed(max_steps=0), key=KEY)


def test_a_search_that_runs_out_of_steps_says_so():
    # An unknown coefficient is not where it should be, although the equation is solved.
    t = np.linspace(0.1, 2, 8)
    decay = pde.Problem(
        {"t": (0, 2)},
        lambda u, t, c: u.dt + c.rate * u,
        pde.Initial(1.0),
        shape=20,
        observations=pde.Observations(t, np.exp(-0.8 * t), noise_sd=0.01),
        unknown={"rate": (0, 3)},
    )
    with pytest.raises(pk.FitError, match="used all its steps"):
        pk.fit(MODEL, decay, pde.Closed(max_steps=1), key=KEY)


REFUSED = {
    "an envelope": (lambda: pde.SpectralGP(envelope="box"), "envelope='box'.*'student_t'"),
    "a tolerance": (lambda: pde.SpectralGP(equation_sd=0), "equation_sd=0.*positive"),
    "a rank": (lambda: pde.SpectralGP(rank=1), "rank=1.*2 or more"),
    "nodes": (lambda: pde.SpectralGP(num_nodes=2.5), "num_nodes=2.5.*4 or more"),
    "frequencies": (lambda: pde.SpectralGP(frequencies=[3.0]), "takes a dict from axes"),
    "an axis twice": (
        lambda: pde.SpectralGP(frequencies=[("x", 3.0), ("x", 4.0)]),
        "names an axis twice",
    ),
    "a frequency of zero": (
        lambda: pde.SpectralGP(frequencies={"x": [0.0]}),
        "positive numbers; the trend",
    ),
    "an axis": (
        lambda: pk.fit(
            pde.SpectralGP(frequencies={"y": [1.0]}), problem(), pde.Closed(), key=KEY
        ),
        "names the axis 'y'; the problem has x",
    ),
    "lengthscales without axes": (
        lambda: pde.SpectralGP(lengthscales=0.1),
        r"lengthscales=0.1\)`: it takes a dict from axes to lengthscales in units",
    ),
    "a list of lengthscales": (
        lambda: pde.SpectralGP(lengthscales={"x": [0.1, 0.2]}),
        r"`SpectralGP\(lengthscales=\{'x': \[0.1, 0.2\]\}\)`: it takes a positive number",
    ),
    "a negative lengthscale": (
        lambda: pde.SpectralGP(lengthscales={"x": -0.1}),
        r"\{'x': -0.1\}\)`: it takes a positive number for each axis",
    ),
    "an axis of lengthscales": (
        lambda: pk.fit(
            pde.SpectralGP(lengthscales={"y": 1.0}), problem(), pde.Closed(), key=KEY
        ),
        "lengthscales=.* names the axis 'y'; the problem has x",
    ),
    "derivatives that a solution does not have": (
        lambda: pk.fit(
            pde.SpectralGP("student_t"),
            pde.Problem(
                {"x": (0, 1)}, lambda u, x: u.dxxx - 1, pde.Dirichlet(0.0), shape=8
            ),
            pde.Closed(),
            key=KEY,
        ),
        "have 2 derivatives, and the problem has one of order 3; use 'gaussian'",
    ),
    "nothing to learn from": (
        lambda: pk.fit(pde.SpectralGP(equation_sd=None), problem(), pde.Closed(), key=KEY),
        "is estimated from observations, and the problem has none",
    ),
    "another model": (
        lambda: pk.fit(pde.GridGP(), problem(), pde.Closed(), key=KEY),
        "fits `pde.SpectralGP` to `pde.Problem`, not `GridGP` to `Problem`",
    ),
    "points of two axes": (
        lambda: pk.predict(fitted(), np.zeros((3, 2)), key=KEY),
        r"shape \(3, 2\).*one column per axis \(x\)",
    ),
    "steps": (lambda: pde.Closed(max_steps=-1), "max_steps=-1"),
    "a slope": (lambda: pde.Closed(atol=0.0), "atol=0.0"),
}


@pytest.mark.usefixtures("no_checker")
@pytest.mark.parametrize("make, words", REFUSED.values(), ids=REFUSED.keys())
def test_it_is_refused_in_one_line(make, words):
    with pytest.raises(ValueError, match=words) as refused:
        make()
    assert "\n" not in str(refused.value)


def test_growth_is_found_from_noisy_observations_of_a_nonlinear_equation():
    random = np.random.default_rng(1)
    t = np.sort(random.uniform(0, 6, 40))
    values = 1 / (1 + 9 * np.exp(-1.3 * t)) + 0.02 * random.normal(size=40)
    growth = pde.Problem(
        {"t": (0, 6)},
        lambda u, t, c: u.dt - c.rate * u * (1 - u),
        observations=pde.Observations(t, values),
        unknown={"rate": (0.1, 4)},
        shape=30,
    )
    model = pde.SpectralGP(num_nodes=8, equation_sd=1e-3)
    fit = pk.fit(model, growth, pde.Closed(), key=KEY)
    # The standard error of the rate by nonlinear least squares is 0.02.
    rate = fit.posterior["rate"].values
    assert abs(rate.mean() - 1.3) < 0.06
    assert rate.std() == pytest.approx(0.02, rel=0.5)
    grid = np.asarray(growth.grid[0])
    found = pk.recover(fit, key=KEY, num_draws=20)["solution_mean"].values[0].mean(0)
    assert np.abs(found - 1 / (1 + 9 * np.exp(-1.3 * grid))).max() < 0.02
