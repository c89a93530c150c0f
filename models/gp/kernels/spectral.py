"""Kernels that are defined by their spectrum: a few bumps, or a row of them."""

import math
from typing import Any, ClassVar

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits, log_normal
from probkit.gp import mixture, state_space
from probkit.gp.mixture import Envelope, as_envelope
from probkit.models.gp.cosine import Cosine
from probkit.models.gp.kernels.leaf import AbstractStationary, Column, as_input, as_name
from probkit.models.gp.kernels.priors import SD, WAVE_WIDTH, scale_prior
from probkit.validate import as_array, optional, positive, short, whole

# Width of the prior of the frequency of a trend, in cycles over the data.
TREND_WIDTH = 0.1
# Lengthscales at which a mixture starts, in lengths of the data, and sd of the logarithm.
WAVE_LENGTH, TREND_LENGTH, LENGTH_SPREAD = 1.0, 0.5, 1.0


def _frequencies(value: Any) -> tuple[float, ...]:
    array = as_array(value, "SpectralMixture(frequencies=...)")
    found = tuple(float(f) for f in array.reshape(-1))
    if array.ndim > 1 or any(f <= 0 for f in found) or not found:
        raise ValueError(
            f"`SpectralMixture(frequencies={short(value)})`: it takes a list of positive "
            "numbers; the trend, of frequency zero, is added to them."
        )
    return found


class SpectralMixture(AbstractStationary):
    r"""$\sum_q s_q²\, E(d / ℓ_q) \cos(2π μ_q d)$: a spectrum of a few bumps.

    See `probkit.gp.SpectralMixture`. Sites, of shape `(q,)`: `sd_<name>` $s$, in units of
    the output; `frequency_<name>` $μ$, in cycles per unit of the input;
    `lengthscale_<name>` $ℓ$, in units of the input, over which a wave keeps its phase.

    The priors are centred on the data: one component at frequency zero, for a trend, and
    one at each of the strongest waves that the periodogram finds (`probkit.gp.waves`), of
    that amplitude. Frequencies have Student-t priors, 0.2 cycles over the data wide, sds
    gamma and lengthscales log-normal ones. This uses the data twice, in the place of a
    search among the many maxima that a frequency has.

    Attributes:
        num_components: $Q$. By default one for the trend and one per wave. Components
            beyond those have frequency zero and shorter lengthscales.
        envelope: $E$: "gaussian" or "student_t", see `probkit.gp`.
        frequencies: the frequencies of the waves, where you know them.

    Source: Wilson & Adams (2013), "Gaussian process kernels for pattern discovery and
    extrapolation". Departs: proper priors, which start at the data's own waves.
    """

    num_components: int | None = eqx.field(
        default=None, converter=optional(whole("SpectralMixture(num_components", 1))
    )
    envelope: Envelope = eqx.field(
        default="gaussian", converter=as_envelope("SpectralMixture")
    )
    frequencies: tuple[float, ...] | None = eqx.field(
        default=None, converter=optional(_frequencies)
    )
    on: str | None = eqx.field(default=None, converter=optional(as_input))
    name: str | None = eqx.field(default=None, converter=optional(as_name))

    kind: ClassVar[str] = "mixture"
    instead: ClassVar[str] = '`gp.SpectralMixture(envelope="student_t")`'
    one_input: ClassVar[bool] = True
    own_sd: ClassVar[bool] = True

    def priors(self, column):
        length, spacing, y_sd = column.length[0], column.spacing[0], column.units.y_sd
        waves, amplitudes = column.waves
        if self.frequencies is not None:
            waves = jnp.asarray(self.frequencies, length.dtype)
            amplitudes = jnp.full(waves.shape, SD * math.sqrt(2)) * y_sd
        count = self.size(column)
        waves, amplitudes = waves[: count - 1], amplitudes[: count - 1]
        # The lengthscales of components beyond the trend and the waves halve each time.
        more = 2.0 ** -jnp.arange(1, count - len(waves), dtype=length.dtype)
        trends = TREND_LENGTH * jnp.concatenate([jnp.ones(1, length.dtype), more]) * length
        trends = jnp.maximum(trends, 2 * spacing)
        frequency = jnp.concatenate([jnp.zeros_like(trends), waves])
        width = jnp.concatenate(
            [
                TREND_WIDTH * TREND_LENGTH / trends,
                jnp.full(waves.shape, WAVE_WIDTH) / length,
            ]
        )
        sd = jnp.concatenate([SD * y_sd * jnp.ones_like(trends), amplitudes / math.sqrt(2)])
        lengthscale = jnp.concatenate(
            [trends, WAVE_LENGTH * length * jnp.ones(waves.shape)]
        )
        t = dist.StudentT(3.0, jnp.zeros(count, length.dtype), 1.0).to_event(1)
        return {
            "sd": scale_prior(sd),
            "frequency": InUnits(t, [AffineTransform(frequency, width)]),
            "lengthscale": log_normal(lengthscale, LENGTH_SPREAD),
        }

    def size(self, column: Column) -> int:
        """The number of components."""
        if self.num_components is not None:
            return self.num_components
        waves = column.waves[0] if self.frequencies is None else self.frequencies
        return 1 + len(waves)

    def axes(self):
        return dict.fromkeys(("sd", "frequency", "lengthscale"), ("component",))

    def coords(self, column):
        return {"component": np.arange(self.size(column))}

    def at(self, θ, column, lag):
        kernel = mixture.SpectralMixture(
            θ["sd"] ** 2, θ["frequency"], θ["lengthscale"], self.envelope
        )
        return kernel(lag[..., 0])

    @property
    def is_chain(self):
        return self.envelope == "student_t"

    def process(self, θ, column, variance, num_waves):
        # Each component is a wave whose amplitude and phase wander.
        each = zip(θ["sd"] ** 2 * variance, θ["frequency"], θ["lengthscale"], strict=True)
        return state_space.Sum(
            tuple(
                state_space.Product(state_space.Matern(2.5, length, s), Cosine(frequency))
                for s, frequency, length in each
            )
        )


class SpectralGrid(AbstractStationary):
    r"""$e^{-d²/2ℓ²} \sum_q s_q² \cos(2π μ_q d)$ with fixed $μ_q$ and $ℓ$.

    The spectrum is a row of bumps at even frequencies, from 0 to the highest, and only
    their weights $s_q^2$ are estimated. `gp.SparseWeights` finds the few that explain the
    data. Site: `sd_<name>` $s$,
    shape `(q,)`, in units of the output, labelled by the frequencies. Its prior is
    half-Cauchy, of scale 0.5 sds of the output over the number of frequencies.

    Attributes:
        num_frequencies: $Q$.
        highest: the highest frequency, in cycles per unit of the input. By default
            Nyquist's for the mean spacing of the points, 1 / (2 spacing).
        lengthscale: $ℓ$, over which a wave keeps its phase, in units of the input. By
            default that at which the sd of a bump, $1 / (2πℓ)$, is one step of the grid.

    Source: Yin, Pan, He, Chen, Theodoridis & Luo (2020), "Linear multiple low-rank kernel
    based stationary Gaussian processes regression for time series", arXiv 1904.09559;
    Suwandi et al. (2023), arXiv 2309.08201.
    """

    num_frequencies: int = eqx.field(
        default=500, converter=whole("SpectralGrid(num_frequencies", 2)
    )
    highest: float | None = eqx.field(
        default=None, converter=optional(positive("SpectralGrid(highest"))
    )
    lengthscale: float | None = eqx.field(
        default=None, converter=optional(positive("SpectralGrid(lengthscale"))
    )
    on: str | None = eqx.field(default=None, converter=optional(as_input))
    name: str | None = eqx.field(default=None, converter=optional(as_name))

    kind: ClassVar[str] = "grid"
    instead: ClassVar[str] = '`gp.SpectralMixture(envelope="student_t")`'
    one_input: ClassVar[bool] = True
    own_sd: ClassVar[bool] = True

    def priors(self, column):
        count = self.num_frequencies
        scale = SD * column.units.y_sd / count * jnp.ones(count, column.length.dtype)
        base = dist.HalfCauchy(jnp.ones_like(scale)).to_event(1)
        return {
            "sd": InUnits(base, [AffineTransform(0.0, scale, dist.constraints.positive)])
        }

    def axes(self):
        return {"sd": ("frequency",)}

    def coords(self, column):
        return {"frequency": np.asarray(self.frequencies(column))}

    def frequencies(self, column: Column) -> Float[Array, " q"]:
        """$μ$, in cycles per unit of the input."""
        highest = 0.5 / column.spacing[0] if self.highest is None else self.highest
        return jnp.linspace(0.0, highest, self.num_frequencies, dtype=column.length.dtype)

    def decay(self, column: Column) -> Float[Array, ""]:
        """$ℓ$, in units of the input."""
        if self.lengthscale is not None:
            return jnp.asarray(self.lengthscale, column.length.dtype)
        return 1 / (2 * math.pi * self.frequencies(column)[1])

    def at(self, θ, column, lag):
        waves = jnp.cos(2 * math.pi * lag * self.frequencies(column))
        bell = jnp.exp(-0.5 * (lag[..., 0] / self.decay(column)) ** 2)
        return bell * (waves @ θ["sd"] ** 2)

    def between(self, θ, column, x, x2):
        # cos(a - b) = cos a cos b + sin a sin b: two products in place of n m q cosines
        s = 2 * math.pi * self.frequencies(column)
        # From the first place, because rounding of a phase grows with it.
        low = column.units.low[column.columns[0]]
        a, b = (x - low) * s, (x2 - low) * s
        v = θ["sd"] ** 2
        waves = (jnp.cos(a) * v) @ jnp.cos(b).T + (jnp.sin(a) * v) @ jnp.sin(b).T
        bell = jnp.exp(-0.5 * ((x - x2[:, 0]) / self.decay(column)) ** 2)
        return bell * waves
