"""Where EM starts: observations dealt out to experts, in several ways.

Each way finds optima that the others miss. Slabs of a random projection suit experts that
take turns along the inputs; the neighbourhoods of random points, clusters; random lines,
experts that cross; random classes, experts that differ little.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from probkit.models.moe.least_squares import solve_positive
from probkit.models.moe.terms import design


def dealt(
    x: Float[Array, "n d"], y: Float[Array, " n"], num_experts: int, key: PRNGKeyArray
) -> Float[Array, "n k"]:
    """Responsibilities to start from: 0.9 for the expert that a random rule names.

    Args:
        x: inputs, in standard coordinates.
        y: outputs, in standard coordinates.
        num_experts: $K$.
        key: a JAX random key.

    Returns:
        Responsibilities, whose rows sum to one.
    """
    key_rule, key = jax.random.split(key)
    rule = jax.random.randint(key_rule, (), 0, len(RULES))
    rules = [lambda key, rule=rule: rule(x, y, num_experts, key) for rule in RULES]
    label = jax.lax.switch(rule, rules, key)
    return 0.9 * jax.nn.one_hot(label, num_experts, dtype=x.dtype) + 0.1 / num_experts


def moved(
    x: Float[Array, "n d"], y: Float[Array, " n"], log_r: Float[Array, "n k"], key
) -> Float[Array, "n k"]:
    """Responsibilities after one expert is given up, and another one is split.

    The observations of the first go to the others, as if it were not there. Of those of
    the second, some go to the expert that has become free. An optimum with two experts
    where one would do, and one where two are needed, is left in one move.

    Args:
        x: inputs, in standard coordinates.
        y: outputs, in standard coordinates.
        log_r: logarithms of responsibilities.
        key: a JAX random key.

    Source: Ueda, Nakano, Ghahramani & Hinton (2000), "SMEM algorithm for mixture models".
    Departs: random moves, rather than a list of them by merit.
    """
    K = log_r.shape[1]
    key_free, key_split, key_rule = jax.random.split(key, 3)
    free = jnp.arange(K) == jax.random.randint(key_free, (), 0, K)
    r = jax.nn.softmax(jnp.where(free, -jnp.inf, jnp.maximum(log_r, -700.0)), axis=1)
    # The larger an expert, the more likely it is split.
    size = jnp.where(free, -jnp.inf, jnp.log1p(r.sum(0)) / 2)
    split = jnp.arange(K) == jax.random.categorical(key_split, size)
    weight = r @ split.astype(r.dtype)
    part = weight * parted(x, y, weight, key_rule)
    r = jnp.where(free, part[:, None], r - jnp.where(split, part[:, None], 0.0))
    return 0.9 * r + 0.1 / K


def parted(x, y, weight: Float[Array, " n"], key) -> Bool[Array, " n"]:
    """A part of the observations of an expert: a slab, a line, or large residuals."""
    v = jnp.concatenate([x, y[:, None]], axis=1)
    total = weight.sum() + jnp.finfo(v.dtype).tiny
    v = v - weight @ v / total
    v = v / jnp.sqrt(weight @ v**2 / total + jnp.finfo(v.dtype).tiny)
    key_rule, key_direction, key_rows = jax.random.split(key, 3)
    z = design(v[:, :-1])
    terms = z.shape[1]
    odds = jnp.log(weight + jnp.finfo(v.dtype).tiny)
    some = jax.random.categorical(key_rows, odds, shape=(2 * terms,))
    score = v @ jax.random.normal(key_direction, v.shape[1:], v.dtype)
    # The cut is at one of the observations, so that its place follows their distribution.
    slab = score > score[some[0]]
    rows, values = (a[some].reshape(2, terms, *a.shape[1:]) for a in (z, v[:, -1]))
    to_lines = jnp.abs(v[:, -1:] - z @ _through(rows, values).T)
    (own,) = _through(
        z[None] * jnp.sqrt(weight)[:, None], jnp.sqrt(weight)[None] * v[:, -1]
    )
    residual = (v[:, -1] - z @ own) ** 2
    kinds = [
        slab,
        to_lines[:, 0] < to_lines[:, 1],
        residual > 0.5 * (weight @ residual) / total,
    ]
    return jnp.stack(kinds)[jax.random.randint(key_rule, (), 0, len(kinds))]


def _through(rows: Float[Array, "b m t"], values: Float[Array, "b m"]):
    """Least squares with a little ridge, since points that coincide leave lines open."""
    ridge = 1e-3 * jnp.eye(rows.shape[-1], dtype=rows.dtype)
    gram = rows.swapaxes(1, 2) @ rows + ridge
    return solve_positive(gram, (rows.swapaxes(1, 2) @ values[..., None])[..., 0])


def slabs(x, y, num_experts: int, key) -> Int[Array, " n"]:
    """By a random projection of the inputs and the output, cut between observations."""
    key_direction, key_cuts = jax.random.split(key)
    v = jnp.concatenate([x, y[:, None]], axis=1)
    score = v @ jax.random.normal(key_direction, v.shape[1:], v.dtype)
    # Cuts at the scores of observations, so that slabs hold alike shares of them whatever
    # their distribution. Of several per cut the middle one, since a sort of all scores
    # would be slow to compile.
    few = 8 * num_experts
    some = score[jax.random.randint(key_cuts, (few,), 0, len(y))]
    rank = (some[:, None] > some).sum(1)
    at = few * (1 + jnp.arange(num_experts - 1)) // num_experts
    below = rank[:, None] < at
    cuts = jnp.where(below, some[:, None], -jnp.inf).max(0)
    return (score[:, None] > cuts).sum(1)


def neighbourhoods(x, y, num_experts: int, key) -> Int[Array, " n"]:
    """By the nearest of random observations, in the space of inputs and output."""
    v = jnp.concatenate([x, y[:, None]], axis=1)
    center = v[jax.random.randint(key, (num_experts,), 0, len(y))]
    return jnp.argmin(((v[:, None, :] - center) ** 2).sum(-1), axis=1)


def lines(x, y, num_experts: int, key) -> Int[Array, " n"]:
    """By the nearest of random lines, each through as many points as a line takes."""
    z = design(x)
    terms = z.shape[1]
    some = jax.random.randint(key, (num_experts, terms), 0, len(y))
    coefficient = _through(z[some], y[some])
    return jnp.argmin(jnp.abs(y[:, None] - z @ coefficient.T), axis=1)


def classes(x, y, num_experts: int, key) -> Int[Array, " n"]:
    """At random."""
    return jax.random.randint(key, (len(y),), 0, num_experts)


RULES = (slabs, neighbourhoods, lines, classes)
