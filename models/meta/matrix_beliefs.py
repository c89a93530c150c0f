r"""What is believed of a mean and a covariance of matrices: $Θ_i \sim MN(M, U, W)$.

The covariance of $Θ$ in C order is $U ⊗ W$, with $U$ among its $p$ rows and $W$ among its
$q$ columns. The posterior is

$$q(M, U, W) = MN(M; m, U / l, W)\, IW(U; V_U, n_U)\, IW(W; V_W, n_W).$$

Given one of $U$ and $W$ the other, with $M$, has a posterior in closed form. It needs the
second moment of episodes with the side that is given averaged, a small matrix.

Source: Gupta & Nagar (1999), "Matrix variate distributions", for the densities.
"""

import math
from dataclasses import replace
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import constraints

from probkit.distributions.normal_inverse_wishart import (
    divergence_of_scales,
    logdet,
    multidigamma,
)
from probkit.models.meta.beliefs import (
    DF,
    AbstractBelief,
    Averages,
    covariance_prior,
    gamma_shape,
    of_gammas,
    scale_before,
    some_way,
    supports_of_scale,
)
from probkit.models.meta.spreads import MatrixNormal


class SidePrior(eqx.Module):
    """The prior of the covariance among rows, or among columns.

    Attributes:
        scale: of an inverse Wishart, `(d, d)`, or None if the sds are half-t.
        dof: its degrees of freedom, if there is a scale.
        sd: the scale of half-t sds, `(d,)`, or None.
    """

    scale: Float[Array, "d d"] | None = None
    dof: Float[Array, ""] | None = None
    sd: Float[Array, " d"] | None = None

    def covariance(self) -> dist.Distribution:
        """As a distribution."""
        return covariance_prior(self)

    def degrees(self) -> Float[Array, ""]:
        if self.sd is not None:
            return jnp.asarray(DF + len(self.sd) - 1, self.sd.dtype)
        assert self.dof is not None
        return self.dof

    def belief(self, spread: Float[Array, "d d"], num: float | Array) -> "Side":
        """The belief that the covariance is this, as if from so many vectors."""
        n = self.degrees() + num
        rate = None if self.sd is None else jnp.ones_like(self.sd)
        return Side(n * spread, n, rate)


class Side(eqx.Module):
    """The posterior of one covariance, an inverse Wishart.

    Attributes:
        scale: $V$, `(d, d)`.
        dof: $n$.
        rate: of the precisions of half-t sds, `(d,)`, or None; as for `beliefs.Full`.
    """

    scale: Float[Array, "*k d d"]
    dof: Float[Array, "*k"]
    rate: Float[Array, "*k d"] | None

    @property
    def size(self) -> int:
        return self.scale.shape[-1]

    def precision(self) -> Float[Array, "d d"]:
        """The mean of the inverse."""
        return self.dof * jnp.linalg.inv(self.scale)

    def covariance(self) -> Float[Array, "d d"]:
        """The inverse of that."""
        return self.scale / self.dof

    def mean_logdet(self) -> Float[Array, ""]:
        d = self.size
        return logdet(self.scale) - d * math.log(2) - multidigamma(self.dof / 2, d)

    def excess(self) -> Float[Array, ""]:
        r"""$E[\ln|U|] + \ln|E[U^{-1}]|$, what is lost because it is not known."""
        d = self.size
        return d * jnp.log(self.dof / 2) - multidigamma(self.dof / 2, d)

    def before(self, prior: SidePrior) -> tuple[Array, Array]:
        r"""$E[V_0]$ and $E[\ln|V_0|]$ under the prior of half-t sds, if there is one."""
        return scale_before(prior.scale, self.rate)

    def refreshed(self, prior: SidePrior) -> "Side":
        """With the precisions of half-t sds at their best."""
        if prior.sd is None:
            return self
        rate = prior.sd**-2 + DF * jnp.diagonal(self.precision())
        return replace(self, rate=rate)

    def divergence(self, prior: SidePrior) -> Float[Array, ""]:
        """Kullback-Leibler divergence from the prior, in nats."""
        mean, mean_log = self.before(prior)
        d, n0 = self.size, prior.degrees()
        found = divergence_of_scales(self.scale, self.dof, mean, mean_log, n0, d)
        if self.rate is not None and prior.sd is not None:
            found = found + of_gammas(gamma_shape(d), self.rate, prior.sd)
        return found

    def sample(self, key: Array) -> Float[Array, "d d"]:
        return dist.InverseWishart(self.dof, scale_matrix=self.scale).sample(key)

    def supports(self) -> list[constraints.Constraint]:
        """What each of the arrays may be, in their order."""
        return supports_of_scale(self.size, self.rate)


class MatrixPrior(eqx.Module):
    r"""The prior of a mean and a covariance of matrices.

    The size of the covariance is shared between $U$ and $W$: data know $U ⊗ W$ alone. The
    priors of both identify it.

    Attributes:
        loc: of the mean, `(p q,)`, in C order.
        strength: the mean is known as from so many episodes.
        rows: the prior of $U$, for $p$ rows.
        columns: the prior of $W$, for $q$ columns.
    """

    loc: Float[Array, " d"]
    strength: Float[Array, ""]
    rows: SidePrior
    columns: SidePrior

    def belief(self, spread: MatrixNormal, num: float | Array) -> "Matrix":
        """The belief that has this spread, as if from so many episodes."""
        p, q = len(spread.rows), len(spread.columns)
        return Matrix(
            self.loc,
            self.strength + num,
            self.rows.belief(spread.rows, num * q),
            self.columns.belief(spread.columns, num * p),
        )


class Seconds(NamedTuple):
    """Of the second moments of episodes, what `Matrix` needs.

    Attributes:
        rows: $E[(Θ - M) W^{-1} (Θ - M)^T]$, with the mean of the inverse.
        columns: $E[(Θ - M)^T U^{-1} (Θ - M)]$.
    """

    rows: Float[Array, "p p"]
    columns: Float[Array, "q q"]


class Matrix(AbstractBelief):
    """The posterior of a mean and a covariance of matrices.

    Attributes:
        loc: $m$, `(p q,)`, in C order.
        strength: $l$.
        rows: of $U$.
        columns: of $W$.
    """

    loc: Float[Array, "*k d"]
    strength: Float[Array, "*k"]
    rows: Side
    columns: Side

    def location(self):
        return self.loc

    def spread(self):
        return jnp.kron(self.rows.covariance(), self.columns.covariance())

    def prior_of_episode(self):
        return MatrixNormal(self.rows.covariance(), self.columns.covariance())

    def reduced(self, second):
        shape = self.rows.size, self.columns.size
        S = second.reshape(*shape, *shape)
        rows = jnp.einsum("ijkl,jl->ik", S, self.columns.precision())
        return Seconds(rows, jnp.einsum("ijkl,ik->jl", S, self.rows.precision()))

    def penalty(self):
        p, q = self.rows.size, self.columns.size
        free = q * self.rows.excess() + p * self.columns.excess()
        return 0.5 * (free + p * q / self.strength)

    def moved(self, prior, averages, num, rate):
        """As for all beliefs. Given the averages, the bound has a closed-form optimum in
        one of the two covariances. A step moves the one that raises it more.
        """
        q = replace(
            self,
            rows=self.rows.refreshed(prior.rows),
            columns=self.columns.refreshed(prior.columns),
        )
        averages = averages._replace(second=Seconds(*averages.second))
        one = _moved_rows(q, prior, averages, num, rate)
        other = _turned(_moved_rows(*_all_turned(q, prior, averages), num, rate))
        found = [_worth(new, q, prior, averages, num) for new in (one, other)]
        better = found[0] >= found[1]
        new = jax.tree.map(lambda a, b: jnp.where(better, a, b), one, other)
        return _balanced(new, prior)

    def divergence(self, prior):
        d, ratio = len(self.loc), prior.strength / self.strength
        away = self.loc - prior.loc
        along = _inner(away, self.rows.precision(), self.columns.precision(), away)
        means = d * (ratio - 1 - jnp.log(ratio)) + prior.strength * along
        sides = self.rows.divergence(prior.rows) + self.columns.divergence(prior.columns)
        return 0.5 * means + sides

    def sample(self, key):
        """A draw of the mean, `(p q,)`, and of both covariances."""
        key_mean, key_rows, key_columns = jax.random.split(key, 3)
        rows, columns = self.rows.sample(key_rows), self.columns.sample(key_columns)
        white = jax.random.normal(key_mean, self.loc.shape, self.loc.dtype)
        away = MatrixNormal(rows, columns).colored(white) / jnp.sqrt(self.strength)
        return self.loc + away, (rows, columns)

    def supports(self):
        sides = [*self.rows.supports(), *self.columns.supports()]
        return [constraints.real_vector, constraints.positive, *sides]


def _moved_rows(
    q: Matrix,
    prior: MatrixPrior,
    averages: Averages,
    num: float | Array,
    rate: float | Array,
) -> Matrix:
    """With mean and covariance among rows moved towards their best."""
    own, shape = q.rows, (q.rows.size, q.columns.size)
    P, count = q.columns.precision(), num * averages.share
    away = (prior.loc - q.loc).reshape(shape)
    strength = some_way(q.strength, prior.strength + count, rate)
    dof = some_way(own.dof, prior.rows.degrees() + count * shape[1], rate)
    first = prior.strength * away + num * averages.first.reshape(shape)
    step = rate * first / strength
    before, _ = own.before(prior.rows)
    second = before + prior.strength * away @ P @ away.T + num * averages.second.rows
    scale = some_way(own.scale, second, rate) - strength * step @ P @ step.T
    # What rounding leaves of asymmetry would grow from step to step.
    rows = replace(own, scale=(scale + scale.T) / 2, dof=dof)
    return Matrix(q.loc + step.reshape(-1), strength, rows, q.columns)


def _worth(
    new: Matrix, old: Matrix, prior: MatrixPrior, averages: Averages, num: float | Array
) -> Float[Array, ""]:
    """The bound as a function of the belief, given the episodes, up to a constant.

    One side of `new` is that of `old`, about whose mean and precision averages are.
    """
    p, q = new.rows.size, new.columns.size
    left, right = new.rows.precision(), new.columns.precision()
    old_left, old_right = old.rows.precision(), old.columns.precision()
    # The side that has not moved gives the trace of the other; together they give both.
    apart = jnp.sum((left - old_left) * averages.second.rows) + jnp.sum(
        (right - old_right) * averages.second.columns
    )
    step = new.loc - old.loc
    along = averages.share * _inner(step, left, right, step)
    along = along - 2 * _inner(step, left, right, averages.first)
    logs = q * new.rows.mean_logdet() + p * new.columns.mean_logdet()
    logs = averages.share * (logs + p * q / new.strength)
    return -0.5 * num * (logs + apart + along) - new.divergence(prior)


def _balanced(q: Matrix, prior: MatrixPrior) -> Matrix:
    r"""With $s U$ and $W / s$, for the $s$ under which the priors find them most likely.

    Only the priors see $s$. The divergence is $c \ln s + a / s + b s$ up to a constant,
    and coordinate steps would take as many to reach its minimum as there are episodes.
    """
    before_rows, _ = q.rows.before(prior.rows)
    before_columns, _ = q.columns.before(prior.columns)
    a = jnp.sum(q.rows.precision() * before_rows) / 2
    b = jnp.sum(q.columns.precision() * before_columns) / 2
    c = prior.rows.degrees() * q.rows.size - prior.columns.degrees() * q.columns.size
    c = c / 2
    root = jnp.sqrt(c**2 + 4 * a * b)
    # Of b s² + c s = a. The other form of the root would lose digits.
    s = jnp.where(c > 0, 2 * a / (c + root), (root - c) / (2 * b))
    rows = replace(q.rows, scale=q.rows.scale * s)
    return replace(q, rows=rows, columns=replace(q.columns, scale=q.columns.scale / s))


def _inner(a: Array, rows: Array, columns: Array, b: Array) -> Float[Array, ""]:
    """$a^T (P ⊗ Q) b$."""
    shape = len(rows), len(columns)
    return jnp.sum((rows @ a.reshape(shape) @ columns) * b.reshape(shape))


# Rows and columns exchanged.


def _turned(q: Matrix) -> Matrix:
    loc = _transposed(q.loc, q.rows.size)
    return Matrix(loc, q.strength, q.columns, q.rows)


def _all_turned(
    q: Matrix, prior: MatrixPrior, averages: Averages
) -> tuple[Matrix, MatrixPrior, Averages]:
    p = q.rows.size
    loc = _transposed(prior.loc, p)
    other = MatrixPrior(loc, prior.strength, prior.columns, prior.rows)
    second = Seconds(averages.second.columns, averages.second.rows)
    first = _transposed(averages.first, p)
    return _turned(q), other, Averages(averages.share, first, second)


def _transposed(vector: Float[Array, " d"], rows: int) -> Float[Array, " d"]:
    return vector.reshape(rows, -1).T.reshape(-1)
