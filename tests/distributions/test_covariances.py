"""Distributions of means and covariances: densities, divergences, draws, coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
import pytest
import scipy.stats
from jax.test_util import check_grads
from numpyro.distributions.transforms import AffineTransform, biject_to

from probkit.distributions import (
    Congruence,
    HalfTCovariance,
    InUnits,
    NormalInverseWishart,
    RootAffine,
    half_t,
)

KEY = jax.random.key(0)
SCALE = np.array([0.5, 2.0])


def niw(seed, d=3, strength=2.5, dof=7.0):
    rng = np.random.default_rng(seed)
    root = rng.normal(size=(d, d))
    scale = root @ root.T + np.eye(d)
    return NormalInverseWishart(
        jnp.asarray(rng.normal(size=d)),
        jnp.asarray(strength),
        jnp.asarray(scale),
        jnp.asarray(dof),
    )


@pytest.fixture(scope="module")
def draws():
    """Of a distribution, and the log densities of it and of another one there."""
    q, p = niw(1), niw(2, strength=0.7, dof=5.0)

    def draw(key):
        mean, covariance = q.sample(key)
        return mean, covariance, q.log_prob(mean, covariance), p.log_prob(mean, covariance)

    # One after the other, because large batches of small matrices are slow on a CPU.
    drawn = jax.jit(lambda keys: jax.lax.map(draw, keys))(jax.random.split(KEY, 20_000))
    return q, p, [np.asarray(a) for a in drawn]


def test_the_joint_density_is_that_of_scipy(draws):
    q, _, (means, covariances, found, _) = draws
    for i in range(3):
        given = scipy.stats.multivariate_normal(q.loc, covariances[i] / float(q.strength))
        prior = scipy.stats.invwishart(float(q.dof), np.asarray(q.scale))
        expected = prior.logpdf(covariances[i]) + given.logpdf(means[i])
        assert found[i] == pytest.approx(expected, rel=1e-10)


# Five standard errors: one comparison in two million fails by chance.
def close(values, expected):
    error = values.std(0) / np.sqrt(len(values))
    assert (np.abs(values.mean(0) - expected) < 5 * error).all()


def test_the_divergence_is_a_mean_of_log_ratios(draws):
    q, p, (_, _, ours, theirs) = draws
    close(ours - theirs, q.divergence(p))
    assert q.divergence(q) == pytest.approx(0.0, abs=1e-12)


def test_the_expectations_are_means_of_draws(draws):
    q, _, (means, covariances, *_) = draws
    close(means, q.loc)
    close(np.linalg.inv(covariances), q.precision())
    close(np.linalg.slogdet(covariances)[1], q.mean_logdet())
    np.testing.assert_allclose(np.linalg.inv(q.precision()), q.covariance(), rtol=1e-10)


def test_the_predictive_distribution_is_the_mixture_of_normals(draws):
    q, _, (means, covariances, *_) = draws
    place = np.array([0.3, -1.0, 0.5])
    mixed = dist.MultivariateNormal(means, covariances).log_prob(place)
    close(np.exp(mixed), np.exp(q.predictive().log_prob(place)))


def test_a_transformed_distribution_is_that_of_transformed_draws(draws):
    q, _, (means, covariances, found, _) = draws
    rng = np.random.default_rng(3)
    A, b = jnp.asarray(rng.normal(size=(3, 3))), jnp.asarray(rng.normal(size=3))
    mean, covariance = A @ means[0] + b, A @ covariances[0] @ A.T
    moved = q.transformed(A, b).log_prob(mean, covariance)
    # The mean is stretched by |A|, the covariance by |A|^(d + 1).
    stretch = 5 * np.linalg.slogdet(A)[1]
    assert moved == pytest.approx(found[0] - stretch, rel=1e-10)


def test_half_t_is_student_t_folded_at_zero():
    found = half_t(jnp.asarray(1.7), 2.0)
    for place in (0.01, 1.0, 30.0):
        expected = np.log(2) + scipy.stats.t(2, scale=1.7).logpdf(place)
        assert found.log_prob(place) == pytest.approx(expected, rel=1e-12)
    beyond = 2 * scipy.stats.t(2).sf(1.0)
    # "Four in ten" of the docstring.
    assert beyond == pytest.approx(0.42, abs=0.005)


def test_in_one_dimension_the_covariance_is_a_squared_half_t():
    found = HalfTCovariance(jnp.asarray([1.7]), 3.0)
    for sd in (0.1, 1.0, 20.0):
        expected = float(half_t(1.7, 3.0).log_prob(sd)) - np.log(2 * sd)
        assert found.log_prob(jnp.asarray([[sd**2]])) == pytest.approx(expected, rel=1e-12)


def test_in_one_dimension_it_mixes_inverse_gammas():
    df, scale, variance = 2.0, 0.8, 1.3

    def mixed(a):
        given = scipy.stats.invgamma(df / 2, scale=df / a).pdf(variance)
        return given * scipy.stats.invgamma(0.5, scale=1 / scale**2).pdf(a)

    log_a = np.linspace(-20, 25, 4001)
    expected = np.trapezoid(mixed(np.exp(log_a)) * np.exp(log_a), log_a)
    found = HalfTCovariance(jnp.asarray([scale]), df).log_prob(jnp.asarray([[variance]]))
    assert np.exp(found) == pytest.approx(expected, rel=1e-6)


def test_in_two_dimensions_it_mixes_inverse_wisharts():
    df, (A, B) = 2.0, SCALE
    place = np.array([[1.3, -0.4], [-0.4, 0.6]])
    log_a = np.linspace(-15, 25, 400)
    each = np.exp(log_a)
    prior = [scipy.stats.invgamma(0.5, scale=s**-2).pdf(each) * each for s in (A, B)]
    # The density of IW(2 df diag(1/a), df + 1) depends on 1/a simply.
    n, inverse = df + 1, np.linalg.inv(place)
    unit = scipy.stats.invwishart(n, np.eye(2)).logpdf(place) + np.trace(inverse) / 2
    one, two = 2 * df / each[:, None], 2 * df / each[None]
    log = unit + n / 2 * np.log(one * two)
    log = log - (one * inverse[0, 0] + two * inverse[1, 1]) / 2
    mixed = np.exp(log) * prior[0][:, None] * prior[1][None]
    expected = np.trapezoid(np.trapezoid(mixed, log_a), log_a)
    found = HalfTCovariance(jnp.asarray(SCALE), df).log_prob(jnp.asarray(place))
    assert np.exp(found) == pytest.approx(expected, rel=1e-6)


def test_sds_are_half_t_and_correlations_uniform():
    drawn = HalfTCovariance(jnp.asarray(SCALE), 2.0).sample(KEY, (4000,))
    sd = np.sqrt(np.asarray(jnp.diagonal(drawn, axis1=-2, axis2=-1)))
    correlation = np.asarray(drawn[:, 0, 1]) / sd.prod(1)
    for k, scale in enumerate(SCALE):
        folded = scipy.stats.t(2, scale=scale)
        found = scipy.stats.kstest(sd[:, k], lambda s, t=folded: 2 * t.cdf(s) - 1)
        assert found.pvalue > 1e-4
    uniform = scipy.stats.uniform(-1, 2)
    assert scipy.stats.kstest(correlation, uniform.cdf).pvalue > 1e-4


def test_the_density_of_half_t_covariances_integrates_to_one():
    # By importance: sds log-t, correlations uniform, of whose density |dΣ| is known.
    rng = np.random.default_rng(5)
    count = 20_000
    log_sd = scipy.stats.t(3, loc=np.log(SCALE), scale=1.5)
    drawn = log_sd.rvs((count, 2), random_state=rng)
    sd, r = np.exp(drawn), rng.uniform(-1, 1, count)
    C = np.stack([np.stack([np.ones(count), r], -1), np.stack([r, np.ones(count)], -1)], -1)
    Σ = C * sd[:, :, None] * sd[:, None]
    # dΣ = 4 s_1^2 s_2^2 ds_1 ds_2 dr, and ds = s dlog s.
    log_volume = np.log(4) + 3 * drawn.sum(1)
    log_q = log_sd.logpdf(drawn).sum(1) - np.log(2)
    log_p = HalfTCovariance(jnp.asarray(SCALE), 2.0).log_prob(jnp.asarray(Σ))
    weight = np.exp(np.asarray(log_p) + log_volume - log_q)
    assert weight.std() / np.sqrt(count) < 0.02
    close(weight, 1.0)


def in_units():
    rng = np.random.default_rng(6)
    A = rng.normal(size=(2, 2)) + 2 * np.eye(2)
    root = np.stack([np.linalg.cholesky(A @ A.T), np.diag([100.0, 0.1])])
    white = dist.Normal(jnp.zeros((2, 2)), 1.0).to_event(2)
    half = HalfTCovariance(jnp.asarray(SCALE), 2.0)
    return {
        "congruence": InUnits(half, [Congruence(jnp.asarray(A))]),
        "congruences": InUnits(half.expand([3]).to_event(1), [Congruence(jnp.asarray(A))]),
        "roots": InUnits(white, [RootAffine(jnp.asarray(rng.normal(size=2)), root)]),
        "half-t": InUnits(half_t(1.0), [AffineTransform(0.0, 1000.0)]),
    }


CASES = in_units()
every_case = pytest.mark.parametrize("name", CASES)


@every_case
def test_values_go_to_coordinates_and_back(name):
    density = CASES[name]
    value = density.sample(KEY)
    path = biject_to(density.support)
    z = path.inv(value)
    np.testing.assert_allclose(path(z), value, rtol=1e-10)
    assert density.support.event_dim == density.event_dim
    # Coordinates are those of the standardised prior.
    base = biject_to(density.base_dist.support).inv
    back = value
    for transform in reversed(density.transforms):
        back = transform.inv(back)
    np.testing.assert_allclose(base(back), z, rtol=1e-8, atol=1e-8)


@every_case
def test_the_density_in_units_has_the_jacobian_of_the_coordinates(name):
    density = CASES[name]
    path = biject_to(density.support)
    z = path.inv(density.sample(KEY))

    def free(value):
        """The entries of a value that can be chosen."""
        if value.shape[-1:] == value.shape[-2:-1] and name.startswith("congruence"):
            return jnp.concatenate(
                [value[..., i, j].reshape(-1) for i in range(2) for j in range(i + 1)]
            )
        return value.reshape(-1)

    flat, shape = z.reshape(-1), z.shape
    jacobian = jax.jacobian(lambda z: free(path(z.reshape(shape))))(flat)
    expected = np.linalg.slogdet(np.asarray(jacobian))[1]
    found = path.log_abs_det_jacobian(z, path(z))
    assert jnp.sum(found) == pytest.approx(expected, rel=1e-9)


@every_case
def test_gradients_of_the_log_density_are_right(name):
    density = CASES[name]
    path = biject_to(density.support)
    z = path.inv(density.sample(KEY))

    def energy(z):
        value = path(jnp.asarray(z))
        return density.log_prob(value) + jnp.sum(path.log_abs_det_jacobian(z, value))

    check_grads(energy, (z,), order=1, modes=["rev"], rtol=1e-5, atol=1e-5)


def test_float32_stays_float32():
    scale = jnp.asarray(SCALE, jnp.float32)
    drawn = HalfTCovariance(scale).sample(KEY)
    assert drawn.dtype == jnp.float32
    assert HalfTCovariance(scale).log_prob(drawn).dtype == jnp.float32
    small = jax.tree.map(lambda a: a.astype(jnp.float32), niw(1))
    mean, covariance = small.sample(KEY)
    every = (mean, covariance, small.log_prob(mean, covariance), small.divergence(small))
    assert {str(a.dtype) for a in every} == {"float32"}
