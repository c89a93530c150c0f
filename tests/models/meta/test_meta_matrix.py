"""Matrix normal parameters: against dense matrices, draws, and `Full`."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from probkit.models.meta.beliefs import Averages, FullPrior
from probkit.models.meta.curvature import thin
from probkit.models.meta.matrix_beliefs import MatrixPrior, Seconds, SidePrior
from probkit.models.meta.spreads import (
    Blocks,
    Colored,
    Dense,
    Independent,
    MatrixNormal,
)
from reference import matrix_normal as dense

p, q, n, r = 3, 4, 12, 5
d = p * q


def positive(rng, size):
    root = rng.normal(size=(size, size + 2))
    return jnp.asarray(root @ root.T / size)


@pytest.fixture(scope="module")
def rng():
    return np.random.default_rng(3)


@pytest.fixture(scope="module")
def spread(rng):
    return MatrixNormal(positive(rng, p), positive(rng, q))


class Linear(NamedTuple):
    """Episodes with values that are linear in their parameters, and noise of one."""

    design: jax.Array  # (n, r, d)
    y: jax.Array  # (n, r)

    def posteriors(self, mean, spread):
        def one(F, y):
            e = y - F @ mean
            return thin(e @ e / 2, -F.T @ e, F, spread)

        return jax.vmap(one)(self.design, self.y)


def linear(size, rows=r):
    rng = np.random.default_rng(4)
    design = 2 * rng.normal(size=(n, rows, size))
    theta = rng.normal(size=size) + rng.normal(size=(n, size)) * np.geomspace(0.1, 2, size)
    y = np.einsum("nrd,nd->nr", design, theta) + rng.normal(size=(n, rows))
    return Linear(jnp.asarray(design), jnp.asarray(y))


@jax.jit
def gathered(data, belief, prior):
    """The bound, and what a step needs."""
    spread, num = belief.prior_of_episode(), len(data.y)
    found = data.posteriors(belief.location(), spread)
    second = jax.vmap(spread.second)(found.less, found.shift)
    mean = jax.tree.map(lambda a: a.mean(0), (found.shift, second))
    bound = -found.cost.sum() - num * belief.penalty() - belief.divergence(prior)
    return bound, Averages(jnp.ones(()), *mean)


@jax.jit
def stepped(data, belief, prior):
    bound, averages = gathered(data, belief, prior)
    return belief.moved(prior, averages, float(len(data.y)), 1.0), bound


def half_t_prior(rows, columns):
    loc, strength = jnp.zeros(rows * columns), jnp.asarray(1e-3)
    sides = SidePrior(sd=jnp.ones(rows)), SidePrior(sd=jnp.full(columns, 0.7))
    return MatrixPrior(loc, strength, *sides)


def wishart_prior():
    rng = np.random.default_rng(5)
    rows = SidePrior(positive(rng, p), jnp.asarray(p + 1.5))
    columns = SidePrior(positive(rng, q), jnp.asarray(q + 2.0))
    return MatrixPrior(jnp.asarray(rng.normal(size=d)), jnp.asarray(0.3), rows, columns)


def begun(prior, rows=p, columns=q):
    return prior.belief(MatrixNormal(0.1 * jnp.eye(rows), jnp.eye(columns)), 1.0)


def as_dict(belief):
    return {
        "loc": np.asarray(belief.loc),
        "strength": float(belief.strength),
        "rows": (np.asarray(belief.rows.scale), float(belief.rows.dof)),
        "columns": (np.asarray(belief.columns.scale), float(belief.columns.dof)),
    }


def test_spread_is_that_of_the_dense_product(spread, rng):
    C = dense.covariance(np.asarray(spread.rows), np.asarray(spread.columns))
    F, δ = rng.normal(size=(r, d)), rng.normal(size=d)
    root = jax.vmap(spread.colored)(jnp.eye(d)).T
    assert root @ root.T == pytest.approx(C, rel=1e-12)
    assert spread.times(jnp.asarray(F)) == pytest.approx(F @ C, rel=1e-12)
    assert spread.whitened(root @ δ) == pytest.approx(δ, rel=1e-10)
    assert 2 * spread.half_logdet() == pytest.approx(np.linalg.slogdet(C)[1], rel=1e-12)
    G, full = 0.1 * F, C - 0.01 * F.T @ F + np.outer(δ, δ)
    expected = dense.seconds(full, np.asarray(spread.rows), np.asarray(spread.columns))
    found = spread.second(jnp.asarray(G), jnp.asarray(δ))
    assert found[0] == pytest.approx(expected[0], rel=1e-10)
    assert found[1] == pytest.approx(expected[1], rel=1e-10)


def test_posteriors_of_episodes_are_those_under_the_dense_product(spread):
    C = Dense(
        jnp.asarray(dense.covariance(*map(np.asarray, (spread.rows, spread.columns))))
    )
    one, other = (linear(d).posteriors(jnp.zeros(d), own) for own in (spread, C))
    assert one.shift == pytest.approx(np.asarray(other.shift), rel=1e-10)
    assert one.cost == pytest.approx(np.asarray(other.cost), rel=1e-10)


def test_blocks_color_and_whiten_each_block(spread, rng):
    parts = spread, Independent(jnp.asarray([0.5, 2.0])), Dense(positive(rng, 3))
    blocks = Blocks(parts, (d, 2, 3))
    z, mean = rng.normal(size=(2, d + 5)), jnp.asarray(rng.normal(size=d + 5))
    colored = blocks.colored(jnp.asarray(z[0]))
    assert colored[d : d + 2] == pytest.approx(np.sqrt([0.5, 2.0]) * z[0, d : d + 2])
    into = Colored(mean, blocks)
    assert into(z)[0] == pytest.approx(mean + colored)
    assert into.inv(into(z)) == pytest.approx(z, abs=1e-9)
    slope = jax.jacobian(lambda z: into(z))(jnp.asarray(z[0]))
    logdet = into.log_abs_det_jacobian(z, into(z))
    assert logdet == pytest.approx(np.full(2, np.linalg.slogdet(slope)[1]), rel=1e-10)


def test_divergence_and_penalty_are_those_of_the_dense_normal():
    prior = wishart_prior()
    belief, _ = stepped(linear(d), begun(prior), prior)
    before = as_dict(prior)
    expected = dense.divergence(as_dict(belief), before)
    assert belief.divergence(prior) == pytest.approx(expected, rel=1e-10)
    # An episode that is as believed beforehand: E[log N(θ; M, U ⊗ W)] less its entropy.
    C = np.asarray(belief.spread())
    given = as_dict(belief)
    moments = np.zeros(d), C
    entropy = stats.multivariate_normal(cov=C).entropy()
    found = dense.expected_log_prior(given, given["loc"], moments, 1) + entropy
    assert belief.penalty() == pytest.approx(-found, rel=1e-10)


def test_divergence_is_that_of_draws():
    prior = wishart_prior()
    belief, _ = stepped(linear(d), begun(prior), prior)
    num = 1000
    keys = jax.random.split(jax.random.key(0), num)
    mean, sides = jax.jit(jax.vmap(belief.sample))(keys)
    draws = [np.asarray(a) for a in (mean, *sides)]
    found = [_log_density(one, *draws) for one in (belief, prior)]
    log_ratio = found[0] - found[1]
    error = log_ratio.std() / np.sqrt(num)
    # Of a right implementation one in 16,000 keys fails.
    assert abs(log_ratio.mean() - float(belief.divergence(prior))) < 4 * error


def _log_density(belief, means, rows, columns):
    loc, found = np.asarray(belief.loc).reshape(p, q), []
    (V, k), (R, m) = (
        (np.asarray(side.scale), float(side.dof)) for side in (belief.rows, belief.columns)
    )
    for M, U, W in zip(means, rows, columns, strict=True):
        about = U / float(belief.strength)
        given = stats.matrix_normal.logpdf(M.reshape(p, q), loc, about, W)
        given += stats.invwishart.logpdf(U, k, V) + stats.invwishart.logpdf(W, m, R)
        found.append(given)
    return np.array(found)


def test_mean_of_the_inverse_is_that_of_draws():
    belief = begun(wishart_prior())
    keys = jax.random.split(jax.random.key(1), 20000)
    _, sides = jax.jit(jax.vmap(belief.sample))(keys)
    for draws, side in zip(sides, (belief.rows, belief.columns), strict=True):
        inverse = jnp.linalg.inv(draws)
        error = inverse.std(0) / np.sqrt(len(keys))
        # 25 numbers, each within 5 of its standard errors.
        assert (abs(inverse.mean(0) - side.precision()) < 5 * error).all()


@pytest.mark.parametrize(
    "prior", [wishart_prior(), half_t_prior(p, q)], ids=["IW", "half-t"]
)
def test_no_step_lowers_the_bound(prior):
    data, belief, bounds = linear(d), begun(prior), []
    for _ in range(40):
        belief, bound = stepped(data, belief, prior)
        bounds.append(float(bound))
    assert np.diff(bounds).min() > -1e-9
    assert bounds[-1] > bounds[0] + 100


def test_a_step_ends_where_the_bound_is_highest_along_one_side():
    prior = wishart_prior()
    old = begun(prior)
    _, averages = gathered(linear(d), old, prior)
    new = old.moved(prior, averages, float(n), 1.0)
    before = as_dict(prior)
    first = np.asarray(averages.first)
    # Which second moment of all parameters the two small ones come from does not matter.
    spread = old.prior_of_episode()
    found, C = linear(d).posteriors(old.loc, spread), np.asarray(old.spread())
    G, δ = np.asarray(found.less), np.asarray(found.shift)
    second = np.mean(
        [C - g.T @ g + np.outer(a, a) for g, a in zip(G, δ, strict=True)], axis=0
    )
    assert old.reduced(jnp.asarray(second)).rows == pytest.approx(averages.second[0])
    assert old.reduced(jnp.asarray(second)).columns == pytest.approx(averages.second[1])

    def bound(**changes):
        given = as_dict(new) | {"about": np.asarray(old.loc)} | changes
        return dense.bound(given, before, first, second, n)

    best = bound()
    given = as_dict(new)
    rng = np.random.default_rng(6)
    for _ in range(10):
        loc = given["loc"] + 0.01 * rng.normal(size=d)
        assert bound(loc=loc) < best
    for factor in (0.9, 1.1):
        assert bound(strength=factor * given["strength"]) < best
        (V, k), (R, m) = given["rows"], given["columns"]
        # The size that both share.
        assert bound(rows=(factor * V, k), columns=(R / factor, m)) < best
    old_columns = as_dict(old)["columns"]
    moved = (
        "rows"
        if np.allclose(
            given["columns"][0] / given["columns"][0][0, 0],
            old_columns[0] / old_columns[0][0, 0],
        )
        else "columns"
    )
    V, k = given[moved]
    for _ in range(10):
        away = np.eye(len(V)) + 0.03 * rng.normal(size=V.shape)
        assert bound(**{moved: (away @ V @ away.T, k)}) < best
    for factor in (0.9, 1.1):
        assert bound(**{moved: (V * factor, k * factor)}) < best


@pytest.mark.parametrize("side", ["rows", "columns"])
def test_one_line_of_known_variance_is_a_full_covariance(side):
    data, known = linear(p), 1e8
    one = SidePrior(scale=jnp.full((1, 1), known), dof=jnp.asarray(known))
    free = SidePrior(sd=jnp.ones(p))
    loc, strength = jnp.zeros(p), jnp.asarray(1e-3)
    by_rows = side == "rows"
    prior = MatrixPrior(loc, strength, *((free, one) if by_rows else (one, free)))
    sides = 0.1 * jnp.eye(p), jnp.eye(1)
    belief = prior.belief(MatrixNormal(*(sides if by_rows else sides[::-1])), 1.0)
    prior_full = FullPrior(loc, strength, sd=jnp.ones(p))
    full = prior_full.belief(0.1 * jnp.eye(p), 1.0)
    for _ in range(15):
        belief, bound = stepped(data, belief, prior)
        full, expected = stepped(data, full, prior_full)
        # The known side is known to one part in 10,000.
        assert bound == pytest.approx(float(expected), abs=1e-4)
    assert belief.spread() == pytest.approx(np.asarray(full.spread()), rel=1e-5)
    assert belief.loc == pytest.approx(np.asarray(full.niw.loc), rel=1e-5)


def test_half_steps_approach_the_same_belief_as_whole_ones():
    data, prior = linear(d, rows=20), half_t_prior(p, q)

    @jax.jit
    def ended(rate):
        def step(_, b):
            return b.moved(prior, gathered(data, b, prior)[1], float(n), rate)

        return jax.lax.fori_loop(0, 400, step, begun(prior))

    whole, halves = ended(jnp.asarray(1.0)), ended(jnp.asarray(0.5))
    assert halves.spread() == pytest.approx(np.asarray(whole.spread()), rel=1e-4)
    assert halves.loc == pytest.approx(np.asarray(whole.loc), rel=1e-4)


def test_episodes_that_do_not_belong_leave_the_prior():
    prior = wishart_prior()
    old = begun(prior)
    nothing = Averages(
        jnp.zeros(()), jnp.zeros(d), Seconds(jnp.zeros((p, p)), jnp.zeros((q, q)))
    )
    step = jax.jit(lambda b: b.moved(prior, nothing, 5.0, 1.0))
    new = old
    for _ in range(20):
        new = step(new)
    assert new.loc == pytest.approx(np.asarray(prior.loc))
    assert new.divergence(prior) == pytest.approx(0.0, abs=1e-8)
