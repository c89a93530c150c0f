"""Checks of what can go wrong in a network per episode."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from probkit.method.batches import map_in_batches
from probkit.method.programs import jit_for_one_run
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.meta.checks import check_gain, some_of
from probkit.models.meta.curvature import Problem, Thin
from probkit.models.meta.episodes import Episodes
from probkit.models.meta.outcomes import Categorical
from probkit.models.meta.spreads import AbstractSpread

# Sds of the posterior of a data set by which another expansion may move its weights.
CLOSE = 1.0


def checks(model: Any, sites: Sites, data: Episodes) -> tuple[Check, ...]:
    """The verdicts.

    Args:
        model: a `meta.Network`.
        sites: one draw.
        data: the data.
    """
    gain, of, squares = _compared(model, sites, data.take(some_of(len(data))))
    beyond = check_gain(
        "explained of the values of left-out rows",
        np.asarray(gain),
        np.asarray(of),
        "the network predicts them no better than a constant: rescale its inputs, train "
        "`net` on the pooled rows before, or take a larger one",
        "share of the variance; every other row, given the rest of its data set",
    )
    if squares is None:
        return (beyond,)
    step = Check(
        "how far another expansion moves the weights",
        float(jnp.sqrt(squares.mean())),
        "at most",
        CLOSE,
        "the quadratic is not the log likelihood where data sets end: take fewer Bayesian "
        "arrays, such as the last layer (`bayesian=`), or raise `num_steps` of "
        "`meta.GaussNewton`",
        "in sds of the posterior of a data set",
    )
    return beyond, step


@jit_for_one_run
def _compared(
    model: Any, sites: Sites, data: Episodes
) -> tuple[Float[Array, " n"], Float[Array, " n"], Float[Array, " n"] | None]:
    """Of each data set: what is explained of rows that are left out, and what there is to
    explain; and the square of another step.
    """
    mean, spread, noise = model.given(sites, data)

    def one(own):
        x, y, seen = own

        def local(rows):
            problem = model.problem(x, y, rows, noise)
            return model.curvature.local(problem, mean, spread, jax.random.key(0))[0]

        # In one batch, so that they are compiled once.
        both = jax.vmap(local)(jnp.stack([seen, _every_other(seen)]))
        whole, half = (jax.tree.map(lambda a, i=i: a[i], both) for i in range(2))
        f = model.outputs(mean + half.shift, x)
        if not isinstance(whole, Thin):
            return f, None
        return f, another_step(whole, model.problem(x, y, seen, noise), mean, spread)

    f, squares = map_in_batches(one, (data.x, model.standardised(data), data.seen))
    return *explained(model, f, data), squares


def _every_other(seen: Bool[Array, "*n m"]) -> Bool[Array, "*n m"]:
    """The second row, the fourth, and so on, of those that there are."""
    return seen & (jnp.cumsum(seen, -1) % 2 == 0)


def another_step(
    own: Thin, problem: Problem, mean: Float[Array, " d"], spread: AbstractSpread
) -> Float[Array, ""]:
    r"""The square of the length of Newton's next step, in sds of the posterior.

    With $C^{-1} = V^{*-1} - A$ the step is $-V^* (∇l + C^{-1} δ) = -δ - V^* (∇l - A δ)$,
    and $V^{*-1} = A + C^{-1}$ measures it.
    """
    along = own.factor @ own.shift
    rest = jax.grad(problem.loss)(mean + own.shift) - own.factor.T @ along
    step = own.shift + spread.times(rest[None])[0] - own.less.T @ (own.less @ rest)
    return jnp.sum((own.factor @ step) ** 2) + jnp.sum(spread.whitened(step) ** 2)


def explained(
    model: Any, f: Float[Array, "n m o"], data: Episodes
) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """Squared errors of the mean of all values, less those of the expected values, and the
    former; of classes, errors of their probabilities.
    """
    if isinstance(model.outcome, Categorical):
        expected = jax.nn.softmax(f)
        values = jax.nn.one_hot(data.y.astype(int), f.shape[-1], dtype=f.dtype)
    else:
        # The sd of noise does not change a mean.
        expected = model.density(f, 1.0, data).mean[..., None]
        values = data.y[..., None]
    seen = data.seen[..., None]
    constant = jnp.where(seen, values, 0.0).sum((0, 1)) / seen.sum()
    left_out = seen & ~_every_other(data.seen)[..., None]

    def squares(error):
        return jnp.where(left_out, error**2, 0.0).sum((1, 2))

    before, after = squares(values - constant), squares(values - expected)
    return before - after, before
