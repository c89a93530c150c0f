"""Variances at the maximum of an evidence: the step of a bound, and what to take out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from probkit.method.climb import rounding
from probkit.method.protocol import either

# All variances below one of these shares of their group's largest are tried together.
SHARES = (1e-8, 1e-6, 1e-4, 1e-3, 1e-2, 1e-1)


def ratio(top: Array, bottom: Array) -> Array:
    """`top / bottom`, or 1 if `bottom` is zero.

    A bound of the cost $\\sum_i (b_i γ_i + a_i γ_{i,old}^2 / γ_i)$ has its minimum at
    $γ_i = γ_{i,old} \\sqrt{a_i / b_i}$. A variance that was taken out has neither, and
    stays zero.

    Args:
        top: $a$, any shape.
        bottom: $b$, of the same shape and units.
    """
    known = bottom > 0
    return jnp.where(known, top / jnp.where(known, bottom, 1.0), 1.0)


def fewer(
    evidence: Callable[[Float[Array, " n"]], Float[Array, ""]],
    variance: Float[Array, " n"],
    group: Int[Array, " n"],
    num_groups: int,
    worth: Any,
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """Take out the variances that add less than `worth` to the evidence.

    In each group, all variances below a share of the largest are tried together, so that
    few trials do most of the work. Then they are tried one by one, from the smallest. Both
    are done twice, because what one adds depends on which others are in.

    Args:
        evidence: the log evidence, in nats, as a function of the variances.
        variance: the variances.
        group: the group of each, from 0. Variances are compared within a group.
        num_groups: the number of groups.
        worth: the evidence that a variance must add to stay, in nats: a number, or one for
            each variance.

    Returns:
        The variances, some of them zero now, and the log evidence there.
    """

    def attempt(carry, trial):
        variance, best = carry
        which, share, one = trial
        here = group == which
        small = here & (variance < share * variance.max(where=here, initial=0.0))
        out = (small | (jnp.arange(variance.size) == one)) & (variance > 0)

        def attempted(carry):
            rest = jnp.where(out, 0.0, variance)
            new = evidence(rest)
            # A variance that is zero up to rounding adds only rounding.
            keep = new >= best - (worth * out).sum() - rounding(best)
            return either(keep, (rest, new), carry)

        # The first trial takes out nothing, and computes the evidence to begin with. So the
        # program holds the evidence once, which takes long to compile.
        tried = out.any() | (best == -jnp.inf)
        return jax.lax.cond(tried, attempted, lambda carry: carry, carry), None

    pairs = [(0, 0.0)] + [(g, share) for g in range(num_groups) for share in SHARES]
    groups, shares = (jnp.asarray(np.array(column)) for column in zip(*pairs, strict=True))

    def sweep(carry, _):
        order = jnp.argsort(carry[0])
        none = jnp.full(len(pairs), -1, order.dtype)
        best = carry[1]
        trials = (
            jnp.concatenate([groups, jnp.zeros_like(order, groups.dtype)]),
            jnp.concatenate([shares.astype(best.dtype), jnp.zeros(order.size, best.dtype)]),
            jnp.concatenate([none, order]),
        )
        return jax.lax.scan(attempt, carry, trials)[0], None

    start = (variance, jnp.full((), -jnp.inf, variance.dtype))
    return jax.lax.scan(sweep, start, None, length=2)[0]
