r"""How observations follow from a function of time.

The function $f$ has a level and a scale of its own: those of the values, or of the
logarithm of a rate, or of the logit of a probability. Approximations need two curvatures of
$-\log p(y \mid f)$, its expectation, the *information*, and one for the search of the
maximum, which is positive as well.
"""

from abc import abstractmethod
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float

from probkit.gp.mixture import is_known
from probkit.models.gp.kernels import NOISE, Priors, scale_prior
from probkit.models.gp.observed import Units
from probkit.models.gp.series import Series
from probkit.validate import positive, unlike_counts, unlike_truth_values

# The share of ones at which a level starts stays so far from zero and one.
LEAST_SHARE = 0.01


class AbstractLikelihood(eqx.Module):
    """The distribution of one observation given the function there."""

    in_units: ClassVar[bool] = True
    """Whether the function is in units of the values, with noise in these units."""
    is_normal: ClassVar[bool] = False
    """Whether the function is integrated out exactly."""
    uses_exposure: ClassVar[bool] = False

    @abstractmethod
    def density(
        self, f: Float[Array, "*n"], noise_sd: Any, exposure: Any
    ) -> dist.Distribution:
        """The distribution of the values.

        Args:
            f: the function, with its level.
            noise_sd: sd or scale of the noise, in units of the values; None without noise.
            exposure: for counts, by which their rates are multiplied.
        """

    @abstractmethod
    def information(
        self, f: Float[Array, "*n"], noise_sd: Any, exposure: Any
    ) -> Float[Array, "*n"]:
        """The expectation of minus the second derivative of the log density in `f`."""

    def curvature(
        self, y: Float[Array, "*n"], f: Float[Array, "*n"], noise_sd: Any, exposure: Any
    ) -> Float[Array, "*n"]:
        """A positive curvature, with which a search for the maximum is fast."""
        return self.information(f, noise_sd, exposure)

    def units(self, data: Series) -> Units:
        """The units of the data, with level, scale and amplitudes of the function."""
        return data.units

    def priors(self, data: Series) -> Priors:
        """The priors of its own sites: of the noise, unless the data have it."""
        if not self.in_units or data.noise_sd is not None:
            return {}
        return {"noise_sd": scale_prior(NOISE * data.units.y_sd)}

    def refuse(self, data: Series) -> None:
        """Refuse values that it cannot have. Traced ones are not checked."""
        kind = type(self).__name__
        if data.exposure is not None and not self.uses_exposure:
            raise ValueError(
                f"`Series(exposure=...)` is for counts, `gp.Poisson()`, not `gp.{kind}()`; "
                "leave it out."
            )
        if data.noise_sd is not None and not self.in_units:
            raise ValueError(
                f"`Series(noise_sd=...)`: `gp.{kind}()` has no noise of its own; leave it "
                "out."
            )
        wanted = self._wanted(np.asarray(data.y)) if is_known(data.y) else ""
        if wanted:
            raise ValueError(f"`Series(y=...)`: `gp.{kind}()` takes {wanted}.")

    def _wanted(self, y: np.ndarray) -> str:
        """What values it takes, if these are not such."""
        return ""


class Normal(AbstractLikelihood):
    r"""$y = f + ε$ with $ε \sim N(0, σ^2)$. Site: `noise_sd` $σ$, in units of $y$."""

    is_normal: ClassVar[bool] = True

    def density(self, f, noise_sd, exposure):
        return dist.Normal(f, noise_sd)

    def information(self, f, noise_sd, exposure):
        return jnp.broadcast_to(noise_sd**-2.0, f.shape)


class StudentT(AbstractLikelihood):
    r"""$y = f + σ t$ with $t$ from Student's distribution, for values with outliers.

    Site: `noise_sd` $σ$, the scale, in units of the values.

    Attributes:
        df: degrees of freedom.
    """

    df: float = eqx.field(default=4.0, converter=positive("StudentT(df"))

    def density(self, f, noise_sd, exposure):
        return dist.StudentT(self.df, f, noise_sd)

    def information(self, f, noise_sd, exposure):
        share = (self.df + 1) / (self.df + 3)
        return jnp.broadcast_to(share * noise_sd**-2.0, f.shape)

    def curvature(self, y, f, noise_sd, exposure):
        # Minus the second derivative where that is positive; for an outlier the precision
        # of the normal distribution that touches the log density from below.
        z = ((y - f) / noise_sd) ** 2
        touching = (self.df + 1) / (self.df + z) / noise_sd**2
        own = touching * (self.df - z) / (self.df + z)
        return jnp.where(own > 0, own, touching)


class Poisson(AbstractLikelihood):
    """Counts with mean $e^f$ times the exposure: $f$ is the logarithm of a rate."""

    in_units: ClassVar[bool] = False
    uses_exposure: ClassVar[bool] = True

    def density(self, f, noise_sd, exposure):
        return dist.Poisson(exposure * jnp.exp(f))

    def information(self, f, noise_sd, exposure):
        return exposure * jnp.exp(f)

    def units(self, data):
        rate = data.units.y_mean
        if data.exposure is not None:
            rate = rate * data.seen.sum() / (data.exposure * data.seen).sum()
        return _of_unit_scale(data.units, jnp.log(rate))

    def _wanted(self, y):
        return unlike_counts(y)


class Bernoulli(AbstractLikelihood):
    r"""$y \in \{0, 1\}$ with $\log \frac{p}{1 - p} = f$."""

    in_units: ClassVar[bool] = False

    def density(self, f, noise_sd, exposure):
        return dist.Bernoulli(logits=f)

    def information(self, f, noise_sd, exposure):
        return jax.nn.sigmoid(f) * jax.nn.sigmoid(-f)

    def units(self, data):
        share = jnp.clip(data.units.y_mean, LEAST_SHARE, 1 - LEAST_SHARE)
        return _of_unit_scale(data.units, jnp.log(share / (1 - share)))

    def _wanted(self, y):
        return unlike_truth_values(y)


def _of_unit_scale(units: Units, level: Float[Array, ""]) -> Units:
    """Units of a function of scale one about a level, with the waves of the values."""
    return eqx.tree_at(
        lambda u: (u.y_mean, u.y_sd, u.amplitudes),
        units,
        (
            jnp.asarray(level, units.y_sd.dtype),
            jnp.ones_like(units.y_sd),
            tuple(a / units.y_sd for a in units.amplitudes),
        ),
    )


def as_likelihood(value: Any) -> AbstractLikelihood:
    """A field converter that refuses what is no likelihood."""
    if not isinstance(value, AbstractLikelihood):
        raise ValueError(
            f"`Temporal(observations={value!r})`: it takes `gp.Normal()`, `gp.StudentT()`, "
            "`gp.Poisson()` or `gp.Bernoulli()`."
        )
    return value
