"""What is said of a wrong temporal regression, and not of a right one."""

import jax.numpy as jnp
import numpy as np
import pytest

from probkit.models import gp
from probkit.models.gp.checks import LEFT
from probkit.models.gp.marginal import gain_left

rng = np.random.default_rng(2)
N = 100
T = np.linspace(0, 10, N)
WAVE = np.sin(T) + 0.1 * rng.normal(size=N)
MODEL = gp.Temporal(gp.Matern(2.5))
# Of a fit to the wave.
GOOD = {"level": 0.0, "noise_sd": 0.1, "sd_matern": 1.0, "lengthscale_matern": 2.5}
SEASON = gp.Temporal(gp.Periodic(2 * np.pi))
OF_SEASON = {"level": 0.0, "noise_sd": 0.1, "sd_periodic": 1.0, "period_periodic": 6.28}
COUNTS = gp.Temporal(gp.Matern(2.5), gp.Poisson())
OF_COUNTS = {"level": 1.5, "sd_matern": 0.7, "lengthscale_matern": 2.5}
# A function that says nothing of its neighbours.
NOTHING = {"sd_matern": 5.0, "lengthscale_matern": 0.01}
COUNTED = rng.poisson(np.exp(1.5 + np.sin(T))).astype(float)


def found(y=WAVE, model=MODEL, good=GOOD, dtype=float, **changes):
    sites = {k: jnp.asarray(v, dtype) for k, v in (good | changes).items()}
    return {
        c.name: c
        for c in model.checks(sites, gp.Series(T.astype(dtype), np.asarray(y, dtype)))
    }


def test_all_is_well_with_a_good_fit():
    checks = found()
    assert [name for name, c in checks.items() if not c.ok] == []
    assert len(checks) == 7


def test_all_is_well_with_a_good_fit_of_counts():
    checks = found(COUNTED, COUNTS, OF_COUNTS)
    assert [name for name, c in checks.items() if not c.ok] == []
    assert len(checks) == 5


def season(length, **more):
    return {"model": SEASON, "good": OF_SEASON | {"lengthscale_periodic": length}} | more


# Each check: what makes it fire, and something like it that does not.
FIRES = {
    "all is noise": (
        "share of the observations explained",
        {"sd_matern": 1e-3, "noise_sd": 0.7},
        {"sd_matern": 0.3, "noise_sd": 0.5},
    ),
    "a function too smooth": (
        "correlation of neighbouring residuals",
        {"lengthscale_matern": 60.0, "noise_sd": 0.6},
        {"lengthscale_matern": 3.0},
    ),
    "less noise than there is": (
        "mean square of the residuals",
        {"noise_sd": 0.04},
        {"noise_sd": 0.09},
    ),
    "an end unlike the rest": (
        "mean square of the last fifth given the rest",
        {"y": WAVE + 6.0 * (T > 9)},
        {"y": WAVE + 0.2 * (T > 9)},
    ),
    "shorter than the spacing": (
        "shortest lengthscale over the spacing",
        {"lengthscale_matern": 0.05},
        {"lengthscale_matern": 0.2},
    ),
    "far out in the prior": (
        "furthest lengthscale from its prior",
        {"lengthscale_matern": 200.0},
        {"lengthscale_matern": 10.0},
    ),
    "noise of the size of rounding": (
        "nats lost to rounding",
        {"noise_sd": 1e-3, "dtype": np.float32},
        {"noise_sd": 0.1, "dtype": np.float32},
    ),
    "detail beyond the waves": (
        "share of a periodic kernel in waves that are left out",
        season(0.1),
        season(1.0),
    ),
    "counts unlike the function": (
        "gain over a constant",
        {"y": COUNTED, "model": COUNTS, "good": OF_COUNTS | NOTHING},
        {"y": COUNTED, "model": COUNTS, "good": OF_COUNTS | {"level": 2.0}},
    ),
}


@pytest.mark.parametrize("what", FIRES)
def test_a_check_fires(what):
    name, bad, _ = FIRES[what]
    assert not found(**bad)[name].ok


@pytest.mark.parametrize("what", FIRES)
def test_a_check_does_not_fire_by_and_by(what):
    name, _, good = FIRES[what]
    assert found(**good)[name].ok


def test_a_search_that_is_cut_off_is_reported():
    data = gp.Series(T, COUNTED)
    sites = {k: jnp.asarray(v) for k, v in OF_COUNTS.items()}
    known = COUNTS.evidence(sites, data)
    given = known.process, known.t, known.terms, data.y
    assert gain_left(*given, most_steps=1) > LEFT
    assert gain_left(*given) < LEFT
    assert found(COUNTED, COUNTS, OF_COUNTS)["gain left to the search of the function"].ok
