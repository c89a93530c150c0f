"""Kernels of the distance, and of that on a circle."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits, log_normal
from probkit.gp import state_space
from probkit.models.gp.kernels.leaf import AbstractStationary, Parameters, as_input, as_name
from probkit.models.gp.kernels.priors import WAVE_WIDTH, lengthscale_prior
from probkit.validate import optional, positive, short


def _distance(θ: Parameters, lag: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """Squared distance in lengthscales."""
    return jnp.sum((lag / θ["lengthscale"]) ** 2, -1)


class SquaredExponential(AbstractStationary):
    r"""$e^{-r²/2}$, of functions with all derivatives.

    $r² = \sum_j d_j² / ℓ_j²$. Site: `lengthscale_<name>` $ℓ$, in units of the inputs, one
    per input (a number if there is one input). Prior: log-normal, 98 % between one
    spacing of the points and twice the length of the data.
    """

    on: str | None = eqx.field(default=None, converter=optional(as_input))
    name: str | None = eqx.field(default=None, converter=optional(as_name))

    kind: ClassVar[str] = "squared_exponential"
    instead: ClassVar[str] = "`gp.Matern(2.5)`"

    def priors(self, column):
        return {"lengthscale": lengthscale_prior(column.spacing, column.length)}

    def axes(self):
        return {"lengthscale": ("input",)}

    def at(self, θ, column, lag):
        return jnp.exp(-0.5 * _distance(θ, lag))


def _smoothness(value: Any) -> float:
    if not isinstance(value, str) and value in (0.5, 1.5, 2.5):
        return float(value)
    raise ValueError(f"`Matern(smoothness={short(value)})`: it takes 0.5, 1.5 or 2.5.")


class Matern(AbstractStationary):
    r"""$e^{-z}$, $(1 + z)\, e^{-z}$ or $(1 + z + z²/3)\, e^{-z}$ with $z = \sqrt{2ν}\, r$.

    $r² = \sum_j d_j² / ℓ_j²$. Site and prior are those of `SquaredExponential`.

    Attributes:
        smoothness: $ν$: 0.5, 1.5 or 2.5, of functions with 0, 1 or 2 derivatives.
    """

    smoothness: float = eqx.field(default=2.5, converter=_smoothness)
    on: str | None = eqx.field(default=None, converter=optional(as_input))
    name: str | None = eqx.field(default=None, converter=optional(as_name))

    kind: ClassVar[str] = "matern"

    def priors(self, column):
        return {"lengthscale": lengthscale_prior(column.spacing, column.length)}

    def axes(self):
        return {"lengthscale": ("input",)}

    def at(self, θ, column, lag):
        square = 2 * self.smoothness * _distance(θ, lag)
        # The root has no derivative at zero, where that of the kernel is zero.
        apart = square > 0
        z = jnp.where(apart, jnp.sqrt(jnp.where(apart, square, 1.0)), 0.0)
        polynomials = {0.5: jnp.ones_like(z), 1.5: 1 + z, 2.5: 1 + z + z**2 / 3}
        return polynomials[self.smoothness] * jnp.exp(-z)

    @property
    def is_chain(self):
        return True

    def process(self, θ, column, variance, num_waves):
        return state_space.Matern(self.smoothness, θ["lengthscale"], variance)


class Periodic(AbstractStationary):
    r"""$e^{-2 \sin²(π d / p) / ℓ²}$, of functions that repeat exactly.

    Multiply it by a `Matern()` for a pattern that changes slowly. Sites: `period_<name>`
    $p$, in units of the input; `lengthscale_<name>` $ℓ$, in radians of the circle with
    radius one. The prior of $p$ is at the strongest wave of the data, unless `period` is
    given: Student-t for the logarithm, 0.2 cycles over the data wide. That of $ℓ$ is
    log-normal with median 1.

    Attributes:
        period: about the period, in units of the input, where you know it.

    Source: MacKay (1998), "Introduction to Gaussian processes".
    """

    period: float | None = eqx.field(
        default=None, converter=optional(positive("Periodic(period"))
    )
    on: str | None = eqx.field(default=None, converter=optional(as_input))
    name: str | None = eqx.field(default=None, converter=optional(as_name))

    kind: ClassVar[str] = "periodic"
    one_input: ClassVar[bool] = True

    def priors(self, column):
        length = column.length[0]
        frequencies, _ = column.waves
        if self.period is not None:
            period = jnp.asarray(self.period, length.dtype)
        elif frequencies.size:
            period = 1 / frequencies[0]
        else:
            # No wave stands out: a guess, and the check of the starts has the last word.
            period = length / 4
        width = WAVE_WIDTH * period / length
        base = dist.StudentT(3.0, jnp.zeros((), length.dtype), 1.0)
        log = [AffineTransform(jnp.log(period), width), dist.transforms.ExpTransform()]
        return {
            "period": InUnits(base, log),
            "lengthscale": log_normal(jnp.ones((), length.dtype), 0.7),
        }

    def axes(self):
        return {}

    def at(self, θ, column, lag):
        turn = jnp.sin(math.pi * lag[..., 0] / θ["period"])
        return jnp.exp(-2 * (turn / θ["lengthscale"]) ** 2)

    @property
    def is_chain(self):
        return True

    def process(self, θ, column, variance, num_waves):
        return state_space.Periodic(θ["period"], θ["lengthscale"], variance, num_waves)
