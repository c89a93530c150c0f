r"""The posterior of the weights of one episode, near the present mean of all.

Minus the log likelihood is replaced by a quadratic about the mean $m$ of the prior,
$c + g^T δ + \tfrac12 δ^T A δ$. `GaussNewton` and `Fisher` have $A = F^T F$ with a factor
$F$ of few rows, so that no matrix of the size of the network is made: with $C$ the
covariance of the prior,

$$V^* = C - G G^T, \qquad G = C F^T L^{-T}, \qquad L L^T = I + F C F^T.$$

`Langevin` has a diagonal $A$ from the scatter of noisy steps, as the paper has it.

Source: Kim & Hospedales (2024) for the quadratic; Schraudolph (2002), "Fast curvature
matrix-vector products for second-order gradient descent", for Gauss and Newton's.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from probkit.models.meta.outcomes import AbstractOutcome
from probkit.models.meta.spreads import AbstractSpread, Independent
from probkit.validate import positive, whole

Vector = Float[Array, " d"]


class Problem(NamedTuple):
    """One episode, as a function of its parameters.

    Attributes:
        outputs: the outputs of the network in each row, `(m, o)`.
        outcome: the likelihood of a row.
        y: values, `(m,)`.
        seen: which rows there are, one or zero.
        precision: of the noise, expected.
        log_precision: its logarithm, expected.
    """

    outputs: Callable[[Vector], Float[Array, "m o"]]
    outcome: AbstractOutcome
    y: Float[Array, " m"]
    seen: Float[Array, " m"]
    precision: Float[Array, ""]
    log_precision: Float[Array, ""]

    def losses(self, f: Float[Array, "m o"]) -> Float[Array, " m"]:
        """Minus the log likelihood of each row, zero where there is none."""
        each = jax.vmap(self.outcome.loss, (0, 0, None, None))
        return self.seen * each(f, self.y, self.precision, self.log_precision)

    def loss(self, theta: Vector) -> Float[Array, ""]:
        return self.losses(self.outputs(theta)).sum()


class AbstractLocal(eqx.Module):
    r"""The posterior of the weights of an episode, $N(m + δ^*, V^*)$.

    Attributes:
        shift: $δ^*$.
        cost: $\min (E[l] + KL)$ under the quadratic, in nats.
    """

    shift: eqx.AbstractVar[Vector]
    cost: eqx.AbstractVar[Float[Array, ""]]

    @abstractmethod
    def second(self, spread: AbstractSpread) -> Any:
        r"""What the belief needs of $V^* + δ^* δ^{*T}$."""

    @abstractmethod
    def variance(
        self, spread: AbstractSpread, rows: Float[Array, "m d"]
    ) -> Float[Array, " m"]:
        """$a^T V^* a$ for each row $a$."""

    @abstractmethod
    def drawn(self, spread: AbstractSpread, key: PRNGKeyArray) -> Vector:
        """A draw, less $m$."""


class Thin(AbstractLocal):
    """With a curvature of few rows.

    Attributes:
        factor: $F$, `(r, d)`.
        inner: $L$, `(r, r)`.
        less: $G^T$, `(r, d)`.
    """

    shift: Vector
    cost: Float[Array, ""]
    factor: Float[Array, "r d"]
    inner: Float[Array, "r r"]
    less: Float[Array, "r d"]

    def second(self, spread):
        return spread.second(self.less, self.shift)

    def variance(self, spread, rows):
        before = jnp.sum(spread.times(rows) * rows, 1)
        return before - jnp.sum((rows @ self.less.T) ** 2, 1)

    def drawn(self, spread, key):
        # With z ~ N(0, C) and ε ~ N(0, I) it is δ + z - G L⁻¹ (F z + ε).
        key_prior, key_rows = jax.random.split(key)
        dtype = self.shift.dtype
        z = spread.colored(jax.random.normal(key_prior, self.shift.shape, dtype))
        ε = jax.random.normal(key_rows, (len(self.inner),), dtype)
        misfit = _solved(self.inner, (self.factor @ z + ε)[:, None])[:, 0]
        return self.shift + z - self.less.T @ misfit


class Separate(AbstractLocal):
    """With one variance per weight.

    Attributes:
        own: the diagonal of $V^*$, `(d,)`.
    """

    shift: Vector
    cost: Float[Array, ""]
    own: Vector

    def second(self, spread):
        return self.own + self.shift**2

    def variance(self, spread, rows):
        return rows**2 @ self.own

    def drawn(self, spread, key):
        white = jax.random.normal(key, self.shift.shape, self.shift.dtype)
        return self.shift + jnp.sqrt(self.own) * white


def thin(
    constant: Float[Array, ""],
    gradient: Vector,
    factor: Float[Array, "r d"],
    spread: AbstractSpread,
) -> Thin:
    """The posterior under a quadratic of low rank and a normal prior.

    Args:
        constant: $c$, minus the log likelihood at the mean of the prior.
        gradient: $g$ there.
        factor: $F$.
        spread: the covariance of the prior.
    """
    along = spread.times(factor)
    eye = jnp.eye(len(factor), dtype=factor.dtype)
    inner = jnp.linalg.cholesky(eye + along @ factor.T)
    less = _solved(inner, along)
    shift = less.T @ (less @ gradient) - spread.times(gradient[None])[0]
    logdet = jnp.log(jnp.diagonal(inner)).sum()
    return Thin(shift, constant + gradient @ shift / 2 + logdet, factor, inner, less)


class AbstractCurvature(eqx.Module):
    """How the posterior of an episode is found."""

    @abstractmethod
    def local(
        self, problem: Problem, mean: Vector, spread: AbstractSpread, key: PRNGKeyArray
    ) -> tuple[AbstractLocal, Float[Array, "m o"], Float[Array, "m o d"]]:
        """The posterior; and the outputs at its mean, and their derivative, of the network
        as the posterior takes it.
        """


def _by_factor(factor, num_steps, problem, mean, spread):
    """Steps by quadratics of low rank, each expanded where the last one ended."""
    shift = jnp.zeros_like(mean)
    for _ in range(num_steps):
        f = problem.outputs(mean + shift)
        jacobian = jax.jacrev(problem.outputs)(mean + shift)
        loss, slope = jax.value_and_grad(lambda f: problem.losses(f).sum())(f)
        F = factor(problem, f, slope, jacobian)
        gradient = jnp.einsum("mo,mod->d", slope, jacobian)
        # The same quadratic, written about the mean of the prior.
        along = F @ shift
        constant = loss - gradient @ shift + along @ along / 2
        found = thin(constant, gradient - F.T @ along, F, spread)
        f = f + jacobian @ (found.shift - shift)
        shift = found.shift
    return found, f, jacobian


class GaussNewton(AbstractCurvature):
    r"""The generalised Gauss-Newton matrix $J^T H J$, exact for linear models.

    Attributes:
        num_steps: how often the quadratic is found: at the mean of the prior, and then at
            the mean that the last one gave.
    """

    num_steps: int = eqx.field(default=2, converter=whole("GaussNewton(num_steps", 1))

    def local(self, problem, mean, spread, key):
        return _by_factor(_gauss_newton, self.num_steps, problem, mean, spread)


def _gauss_newton(problem, f, slope, jacobian):
    root = jax.vmap(problem.outcome.root, (0, None))(f, problem.precision)
    rows = jnp.einsum("mor,mod->mrd", root * problem.seen[:, None, None], jacobian)
    return rows.reshape(-1, rows.shape[-1])


class Fisher(AbstractCurvature):
    r"""The empirical Fisher matrix, $\sum_j g_j g_j^T$ of the gradients of the rows.

    It is zero where the network fits each row exactly, and is not the curvature of a model
    that does not hold.

    Attributes:
        num_steps: as for `GaussNewton`.
    """

    num_steps: int = eqx.field(default=2, converter=whole("Fisher(num_steps", 1))

    def local(self, problem, mean, spread, key):
        return _by_factor(_fisher, self.num_steps, problem, mean, spread)


def _fisher(problem, f, slope, jacobian):
    return jnp.einsum("mo,mod->md", slope, jacobian)


class Langevin(AbstractCurvature):
    r"""One variance per weight, from the scatter of noisy gradient steps, as in the paper.

    The mean and variance of the iterates stand for the optimum of the episode and its
    inverse curvature. With few steps the scatter is that of the noise which was put in, and
    the curvature is `largest` for most weights: see the page of the family. It is here to
    be compared with.

    Attributes:
        num_steps: the number of steps.
        burn_in: the number of first steps that do not count.
        step_size: of a step, times the number of rows.
        largest: the largest curvature.
        smallest: the smallest, also taken where fewer than two steps count.

    Source: Kim & Hospedales (2024), whose sampler this follows as far as it is public.
    Departs: steps are plain ones, because an adaptive step size would change the scatter.
    """

    num_steps: int = eqx.field(default=10, converter=whole("Langevin(num_steps", 1))
    burn_in: int = eqx.field(default=0, converter=whole("Langevin(burn_in", 0))
    step_size: float = eqx.field(default=1e-4, converter=positive("Langevin(step_size"))
    largest: float = eqx.field(default=1e3, converter=positive("Langevin(largest"))
    smallest: float = eqx.field(default=1e-4, converter=positive("Langevin(smallest"))

    def local(self, problem, mean, spread, key):
        if not isinstance(spread, Independent):
            raise ValueError(
                "`Langevin` finds one variance per weight; it goes with "
                '`Network(covariance="diagonal")`.'
            )
        size = self.step_size / jnp.maximum(problem.seen.sum(), 1.0)

        def step(theta, key):
            white = jax.random.normal(key, theta.shape, theta.dtype)
            slope = jax.grad(problem.loss)(theta)
            theta = theta - size / 2 * slope + jnp.sqrt(size) * white
            return theta, theta

        _, path = jax.lax.scan(step, mean, jax.random.split(key, self.num_steps))
        kept = path[self.burn_in :]
        center, A = mean, jnp.full_like(mean, self.smallest)
        if len(kept) > 1:
            center = kept.mean(0)
            scatter = jnp.maximum(kept.var(0, ddof=1), 1e-12)
            A = jnp.clip(1 / scatter, self.smallest, self.largest)
        p, away = 1 / spread.variance, center - mean
        own = 1 / (A + p)
        shift = own * A * away
        between = jnp.sum(A * p * own * away**2) / 2
        cost = problem.loss(center) + between + jnp.log1p(A / p).sum() / 2
        at = mean + shift
        return (
            Separate(shift, cost, own),
            problem.outputs(at),
            jax.jacrev(problem.outputs)(at),
        )


def as_curvature(value: Any) -> AbstractCurvature:
    if not isinstance(value, AbstractCurvature):
        raise ValueError(
            f"`Network(curvature=...)` got a `{type(value).__name__}`; it takes "
            "`meta.GaussNewton()`, `meta.Fisher()` or `meta.Langevin()`."
        )
    return value


def _solved(inner: Array, b: Array) -> Array:
    return jax.lax.linalg.triangular_solve(inner, b, left_side=True, lower=True)
