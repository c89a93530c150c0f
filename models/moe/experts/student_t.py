r"""Regressions with outliers: $p_k(y | x) = t_ν(y; z^\top a_k, σ_k)$."""

import equinox as eqx
import jax.numpy as jnp
from numpyro.distributions import StudentT as StudentTDensity

from probkit.models.moe.experts.base import AbstractExperts
from probkit.models.moe.experts.normal import Normal
from probkit.models.moe.terms import design
from probkit.validate import positive


class StudentT(AbstractExperts):
    r"""Lines, each with its own noise scale, and tails that leave room for outliers.

    Sites: those of `Normal`; `noise_sd` is the scale of the t distribution, whose sd is
    larger by $\sqrt{ν/(ν - 2)}$.

    Attributes:
        df: $ν$, degrees of freedom of the noise.
        line: the priors, and the degree of the polynomial.

    Source: Peel & McLachlan (2000), "Robust mixture modelling using the t distribution".
    """

    df: float = eqx.field(default=4.0, converter=positive("StudentT(df"))
    line: Normal = Normal()

    @property
    def degree(self) -> int:
        return self.line.degree

    def priors(self, num_experts, units):
        return self.line.priors(num_experts, units)

    def to_units(self, units):
        return self.line.to_units(units)

    def same(self, num_experts, units):
        return self.line.same(num_experts, units)

    def conditional(self, sites, x):
        lines = design(x, self.degree) @ sites["coefficient"]
        df = jnp.asarray(self.df, lines.dtype)
        return StudentTDensity(df, lines, sites["noise_sd"])

    def better(self, sites, x, y, r, use_prior):
        """As of `Normal`, with less weight for observations far from their line.

        A t variable is normal with an unknown precision, whose mean given the residual is
        the weight.
        """
        lines = design(x, self.degree) @ sites["coefficient"]
        square = ((y[:, None] - lines) / sites["noise_sd"]) ** 2
        weight = r * (self.df + 1) / (self.df + square)
        return self.line.fitted(sites, x, y, weight, r.sum(0), use_prior)

    def on_floor(self, sites, units):
        return self.line.on_floor(sites, units)

    def dims(self, term="term"):
        return self.line.dims(term)
