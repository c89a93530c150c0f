r"""Regressions with normal noise, $p_k(y | x) = N(y; z^\top a_k, σ_k^2)$."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions import Normal as NormalDensity
from numpyro.distributions import StudentT, constraints
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits, RootF
from probkit.model.density import Sites
from probkit.models.moe.experts.base import AbstractExperts
from probkit.models.moe.least_squares import solve_positive, weighted_grams
from probkit.models.moe.terms import Recentred, design, exponents
from probkit.validate import positive, whole

# An expert may hold points that are exactly on a line, with infinite likelihood. Its sd
# stops at this share of the scale of the output, and a check reports it.
FLOOR = 1e-6


def _positive(name: str, default: float):
    return eqx.field(default=default, converter=positive(f"Normal({name}"))


class Normal(AbstractExperts):
    r"""Lines (planes, polynomials), each with its own noise sd.

    Sites: `coefficient` $a$ `(term, expert)`, in units of the output per unit of the
    input, the intercept first; `noise_sd` $σ$ `(expert,)`, in units of the output.

    Priors have scales of the data and polynomial tails, so that neither a coefficient nor
    a noise is held to its scale if the data say otherwise: $a$ has a t distribution, and
    $σ^2$ an F distribution (`RootF`).

    Attributes:
        coefficient_scale: of the prior of $a$, in scales of the output per scale of the
            input.
        coefficient_df: degrees of freedom of that prior.
        noise_scale: of the prior of $σ$, in scales of the output.
        noise_df: how many observations' worth of noise the prior expects beyond those
            that the coefficients take up. Above 0 it keeps an expert that goes through as
            many points as it has coefficients from an infinite density.
        noise_tail_df: the same for large noise; with 1 as heavy as a half-Cauchy tail.
        degree: of the polynomial in the inputs, 1 or more.
    """

    coefficient_scale: float = _positive("coefficient_scale", 2.5)
    coefficient_df: float = _positive("coefficient_df", 3.0)
    noise_scale: float = _positive("noise_scale", 0.5)
    noise_df: float = _positive("noise_df", 2.0)
    noise_tail_df: float = _positive("noise_tail_df", 1.0)
    degree: int = eqx.field(default=1, converter=whole("Normal(degree", 1))

    def priors(self, num_experts, units):
        terms, one = self._num_terms(units), jnp.ones((), units.y_scale.dtype)
        coefficient = StudentT(self.coefficient_df, 0 * one, self.coefficient_scale * one)
        coefficient = coefficient.expand([terms, num_experts]).to_event(2)
        noise = RootF(self._low(terms) * one, self.noise_tail_df * one)
        noise = noise.expand([num_experts])
        to_units = self.to_units(units)
        return {
            "coefficient": InUnits(coefficient, [to_units["coefficient"]]),
            "noise_sd": InUnits(
                noise,
                [
                    AffineTransform(0.0, self.noise_scale * one, constraints.positive),
                    to_units["noise_sd"],
                ],
            ).to_event(1),
        }

    def _num_terms(self, units) -> int:
        return len(exponents(len(units.x_scale), self.degree))

    def _low(self, terms: int) -> float:
        return self.noise_df + terms

    def to_units(self, units):
        return {
            "coefficient": Recentred(
                units.x_center, units.x_scale, self.degree, units.y_center, units.y_scale
            ),
            "noise_sd": AffineTransform(0.0, units.y_scale, constraints.positive),
        }

    def same(self, num_experts, units):
        terms, dtype = self._num_terms(units), units.y_scale.dtype
        return {
            "coefficient": jnp.zeros((terms, num_experts), dtype),
            "noise_sd": jnp.ones(num_experts, dtype),
        }

    def conditional(self, sites, x):
        lines = design(x, self.degree) @ sites["coefficient"]
        return NormalDensity(lines, sites["noise_sd"])

    def better(self, sites, x, y, r, use_prior):
        """Weighted least squares, and then the noise of its residuals."""
        return self.fitted(sites, x, y, r, r.sum(0), use_prior)

    def fitted(
        self,
        sites: Sites,
        x: Float[Array, "n d"],
        y: Float[Array, " n"],
        weight: Float[Array, "n k"],
        count: Float[Array, " k"],
        use_prior: bool,
    ) -> Sites:
        r"""Coefficients and noise, given weights of the squared residuals.

        Args:
            sites: the sites before.
            x: the inputs.
            y: the outputs.
            weight: $w_{ik}$ of squared residuals.
            count: $N_k$, the factor of $-\log σ_k$.
            use_prior: whether priors are included.
        """
        z = design(x, self.degree)
        if use_prior:
            # A ridge of σ² over the variance of the normal prior that touches the t prior
            # from below, so that what raises one raises the other.
            ridge = sites["noise_sd"] ** 2 * self._precision(sites["coefficient"])
        else:
            # Without a prior: enough to keep an expert without observations finite.
            small = 1e2 * jnp.finfo(z.dtype).eps * (1 + count)
            ridge = jnp.broadcast_to(small, sites["coefficient"].shape)
        normal = weighted_grams(z, weight) + jax.vmap(jnp.diag)(ridge.T)
        coefficient = solve_positive(normal, (weight * y[:, None]).T @ z).T
        squares = (weight * (y[:, None] - z @ coefficient) ** 2).sum(0)
        variance = self._variance(squares, count, z.shape[1], use_prior)
        noise_sd = jnp.sqrt(jnp.maximum(variance, FLOOR**2))
        return {"coefficient": coefficient, "noise_sd": noise_sd}

    def _precision(self, coefficient: Float[Array, "t k"]) -> Float[Array, "t k"]:
        df, scale = self.coefficient_df, self.coefficient_scale
        return (df + 1) / (df * scale**2 + coefficient**2)

    def _variance(self, squares, count, terms: int, use_prior: bool):
        r"""The best $σ^2$, given sums of squared residuals.

        With the prior, the maximum over $σ$ (not $σ^2$) of $-N \log σ - S/2σ^2
        + (ν_1 - 1) \log σ - \frac{ν_1 + ν_2}{2} \log(c^2 ν_2/ν_1 + σ^2)$: the positive root
        of a parabola in $σ^2$.
        """
        if not use_prior:
            return squares / jnp.maximum(count, jnp.finfo(squares.dtype).tiny)
        low, high = self._low(terms), self.noise_tail_df
        middle = self.noise_scale**2 * high / low
        a, b = count + 1 + high, squares - (count + 1 - low) * middle
        root = jnp.sqrt(b**2 + 4 * a * squares * middle)
        # Of two forms the one without cancellation.
        return jnp.where(b > 0, (b + root) / (2 * a), 2 * squares * middle / (root - b))

    def on_floor(self, sites, units):
        return sites["noise_sd"].min() <= 1.001 * FLOOR * units.y_scale

    def dims(self, term="term"):
        return {"coefficient": (term, "expert"), "noise_sd": ("expert",)}
