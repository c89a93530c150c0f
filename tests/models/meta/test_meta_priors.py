"""What the default prior of sds is for: it lets them be near zero."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from probkit.distributions import NormalInverseWishart
from probkit.models import meta


@pytest.fixture(scope="module")
def same_slope():
    """Thirty data sets of 1 to 11 rows, with intercepts of their own and one slope."""
    rng = np.random.default_rng(0)
    x = [rng.uniform(0, 10, size) for size in rng.integers(1, 12, 30)]
    level = rng.normal(5.0, 2.0, len(x))
    y = [a + own + 2 * rng.normal(size=len(own)) for a, own in zip(level, x, strict=True)]
    return meta.Episodes(x, y)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        (None, 0.06),
        (
            NormalInverseWishart(
                jnp.zeros(2), jnp.asarray(1e-3), jnp.eye(2), jnp.asarray(4.0)
            ),
            0.29,
        ),
    ],
    ids=["half-t", "inverse Wishart"],
)
def test_sd_of_slopes_that_are_the_same(same_slope, prior, expected):
    # The numbers of the page of the family.
    method = meta.Episodic(num_draws=1000)
    fitted = pk.fit(meta.Linear(prior=prior), same_slope, method, key=jax.random.key(0))
    variance = fitted.posterior["covariance"].sel(term="x0", other_term="x0")
    assert float(np.sqrt(variance).median()) == pytest.approx(expected, abs=0.01)
