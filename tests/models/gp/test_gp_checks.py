"""What is said of a wrong regression, and not of a right one."""

import jax.numpy as jnp
import numpy as np
import pytest

from probkit.models import gp

rng = np.random.default_rng(2)
N = 100
T = np.linspace(0, 10, N)
WAVE = np.sin(T) + 0.1 * rng.normal(size=N)
MODEL = gp.Regression(gp.SquaredExponential())
# Of a fit to the wave.
GOOD = {
    "level": 0.0,
    "noise_sd": 0.1,
    "sd_squared_exponential": 1.0,
    "lengthscale_squared_exponential": 1.8,
}


def check(name, y=WAVE, x=T, model=MODEL, **changes):
    sites = {k: jnp.asarray(v) for k, v in (GOOD | changes).items()}
    found = {c.name: c for c in model.checks(sites, gp.Observed(x, y))}
    return found[name]


def test_all_is_well_with_a_good_fit():
    sites = {k: jnp.asarray(v) for k, v in GOOD.items()}
    found = MODEL.checks(sites, gp.Observed(T, WAVE))
    assert [c.name for c in found if not c.ok] == []
    assert len(found) == 7


EXPLAINED = "share of the observations explained"
NEIGHBOURS = "correlation of neighbouring residuals"
SQUARES = "mean square of the residuals"
LAST = "mean square of the last fifth given the rest"
SPACING = "shortest lengthscale over the spacing"
PRIOR = "furthest lengthscale from its prior"
DIGITS = "digits lost to the range of signal over noise"

# Each check: what makes it fire, and something like it that does not.
FIRES = {
    "all is noise": (
        EXPLAINED,
        {"sd_squared_exponential": 1e-3, "noise_sd": 0.7},
        {"sd_squared_exponential": 0.3, "noise_sd": 0.5},
    ),
    "a function too smooth": (
        NEIGHBOURS,
        {"lengthscale_squared_exponential": 30.0, "noise_sd": 0.6},
        {"lengthscale_squared_exponential": 2.5, "noise_sd": 0.1},
    ),
    "less noise than there is": (SQUARES, {"noise_sd": 0.05}, {"noise_sd": 0.09}),
    "an end unlike the rest": (
        LAST,
        {"y": WAVE + 6.0 * (T > 9)},
        {"y": WAVE + 0.2 * (T > 9)},
    ),
    "shorter than the spacing": (
        SPACING,
        {"lengthscale_squared_exponential": 0.05},
        {"lengthscale_squared_exponential": 0.2},
    ),
    "far out in the prior": (
        PRIOR,
        {"lengthscale_squared_exponential": 200.0},
        {"lengthscale_squared_exponential": 10.0},
    ),
    "noise of the size of rounding": (DIGITS, {"noise_sd": 1e-6}, {"noise_sd": 1e-3}),
}


@pytest.mark.parametrize("what", FIRES)
def test_a_check_fires(what):
    name, bad, _ = FIRES[what]
    assert not check(name, **bad).ok


@pytest.mark.parametrize("what", FIRES)
def test_a_check_does_not_fire_by_and_by(what):
    name, _, good = FIRES[what]
    assert check(name, **good).ok


def test_the_last_fifth_is_that_of_a_line_only():
    x = rng.uniform(0, 5, (40, 2))
    model = gp.Regression(gp.Matern())
    sites = {
        "level": 0.0,
        "noise_sd": 0.5,
        "sd_matern": 0.5,
        "lengthscale_matern": [1.0, 1.0],
    }
    sites = {k: jnp.asarray(v) for k, v in sites.items()}
    names = [c.name for c in model.checks(sites, gp.Observed(x, rng.normal(size=40)))]
    assert LAST not in names and NEIGHBOURS in names


def test_the_order_of_the_observations_does_not_matter():
    order = rng.permutation(N)
    shuffled = check(LAST, y=WAVE[order], x=T[order]).value
    assert shuffled == pytest.approx(check(LAST).value, rel=1e-6)
