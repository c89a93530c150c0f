r"""Experts for outputs that are counts, or yes and no: generalised linear models.

$$p_k(y | x) = f(y; η_k), \qquad η_k = z^\top a_k,$$

with the canonical link, so that the log density is concave in the coefficients.
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpyro.distributions import Bernoulli as BernoulliDensity
from numpyro.distributions import Distribution
from numpyro.distributions import Poisson as PoissonDensity
from numpyro.distributions import StudentT as StudentTDensity

from probkit.distributions import InUnits
from probkit.models.moe.experts.base import AbstractExperts
from probkit.models.moe.gates.newton import damped
from probkit.models.moe.least_squares import solve_positive, weighted_grams
from probkit.models.moe.terms import Recentred, design, exponents
from probkit.validate import positive, whole


class AbstractCounted(AbstractExperts):
    """Generalised linear experts, each fitted by damped Newton steps.

    Site: `coefficient` $a$ `(term, expert)`, on the scale of the link, per unit of the
    input. Its prior is a t distribution.
    """

    @property
    @abstractmethod
    def scale(self) -> float: ...

    @property
    @abstractmethod
    def df(self) -> float: ...

    @abstractmethod
    def density(self, link: Float[Array, "..."]) -> Distribution:
        """The distribution of the output, given $η$."""

    @abstractmethod
    def moments(self, link: Float[Array, "..."]) -> tuple[Array, Array]:
        """Mean and variance of the output, given $η$."""

    def priors(self, num_experts, units):
        shape = (len(exponents(len(units.x_scale), self.degree)), num_experts)
        one = jnp.ones((), units.x_scale.dtype)
        prior = StudentTDensity(self.df, 0 * one, one).expand(shape).to_event(2)
        return {"coefficient": InUnits(prior, [self._map(units, self.scale)])}

    def to_units(self, units):
        return {"coefficient": self._map(units)}

    def _map(self, units, factor: float = 1.0) -> Recentred:
        return Recentred(units.x_center, units.x_scale, self.degree, 0.0, factor)

    def standard(self, y, units):
        return y

    def same(self, num_experts, units):
        terms = len(exponents(len(units.x_scale), self.degree))
        return {"coefficient": jnp.zeros((terms, num_experts), units.x_scale.dtype)}

    def conditional(self, sites, x):
        return self.density(design(x, self.degree) @ sites["coefficient"])

    def better(self, sites, x, y, r, use_prior):
        """One Newton step of each expert, damped; the prior gives way as in `Normal`."""
        z, old = design(x, self.degree), sites["coefficient"]
        mean, variance = self.moments(z @ old)
        small = 1e2 * jnp.finfo(z.dtype).eps * (1 + r.sum(0))
        precision = jnp.broadcast_to(small, old.shape)
        if use_prior:
            precision = (self.df + 1) / (self.df * self.scale**2 + old**2)
        slope = z.T @ (r * (y[:, None] - mean)) - precision * old
        curvature = weighted_grams(z, r * variance) + jax.vmap(jnp.diag)(precision.T)
        step = solve_positive(curvature, slope.T).T

        def of_one(r, old, step, slope, precision):
            link, along = z @ old, z @ step

            def objective(size):
                found = (r * self.density(link + size * along).log_prob(y)).sum()
                return found - 0.5 * (precision * (old + size * step) ** 2).sum()

            return old + damped(objective, slope @ step) * step

        each = jax.vmap(of_one, in_axes=1, out_axes=1)
        return {"coefficient": each(r, old, step, slope, precision)}

    def dims(self, term="term"):
        return {"coefficient": (term, "expert")}


class Bernoulli(AbstractCounted):
    """Outputs of zero and one; coefficients are in logits.

    Attributes:
        scale: prior scale of the coefficients, at the center and per scale of the input.
        df: degrees of freedom of that prior.
        degree: of the polynomial in the inputs, 1 or more.
    """

    scale: float = eqx.field(default=2.5, converter=positive("Bernoulli(scale"))
    df: float = eqx.field(default=3.0, converter=positive("Bernoulli(df"))
    degree: int = eqx.field(default=1, converter=whole("Bernoulli(degree", 1))

    def density(self, link):
        return BernoulliDensity(logits=link)

    def moments(self, link):
        mean = jax.nn.sigmoid(link)
        return mean, mean * (1 - mean)

    def refuse(self, y):
        values = np.unique(np.asarray(y))
        if not np.isin(values, [0.0, 1.0]).all():
            raise ValueError(
                "`moe.Bernoulli` takes outputs of 0 and 1, and `y` has "
                f"{values[~np.isin(values, [0.0, 1.0])][0]:g}."
            )


class Poisson(AbstractCounted):
    """Outputs that are counts; coefficients are logarithms of rates.

    Attributes:
        scale: prior scale of the coefficients, at the center and per scale of the input.
        df: degrees of freedom of that prior.
        degree: of the polynomial in the inputs, 1 or more.
    """

    scale: float = eqx.field(default=2.5, converter=positive("Poisson(scale"))
    df: float = eqx.field(default=3.0, converter=positive("Poisson(df"))
    degree: int = eqx.field(default=1, converter=whole("Poisson(degree", 1))

    def density(self, link):
        return PoissonDensity(jnp.exp(link))

    def moments(self, link):
        rate = jnp.exp(link)
        return rate, rate

    def refuse(self, y):
        values = np.asarray(y)
        wrong = values[(values < 0) | (values != np.round(values))]
        if wrong.size:
            raise ValueError(
                f"`moe.Poisson` takes counts, 0, 1, 2, ..., and `y` has {wrong[0]:g}."
            )
