r"""Kernels: correlations of one or more inputs, their sums and their products.

A simple kernel has variance one. In a sum of products each *term*, a product of simple
kernels, is multiplied by a variance of its own, so that no two scales are redundant:

$$k(x, x') = \sum_t s_t^2 \prod_{j ∈ t} k_j(x, x').$$

A kernel says which sites it has and what their priors are, in the units of the data.
"""

import math
from abc import abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import InUnits, log_normal
from probkit.gp import mixture, state_space
from probkit.gp.grids import by_lag
from probkit.gp.mixture import Envelope, as_envelope
from probkit.model.density import Sites
from probkit.models.gp.cosine import Cosine
from probkit.models.gp.observed import Observed, Units
from probkit.validate import as_array, optional, positive, short, whole

# Where the prior density of a term's sd is highest, and that of the noise, in sds of y.
SD, NOISE = 0.5, 0.25
# The prior of a lengthscale has 98 % between one spacing of the points and this many
# lengths of the data.
LONGEST = 2.0
TWO_SIDED = 2.326
# Widths of the prior of a frequency about its start, in cycles over the data: of a wave,
# and of a trend.
WAVE_WIDTH, TREND_WIDTH = 0.2, 0.1
# Lengthscales at which a mixture starts, in lengths of the data, and sd of the logarithm.
WAVE_LENGTH, TREND_LENGTH, LENGTH_SPREAD = 1.0, 0.5, 1.0

Priors = dict[str, dist.Distribution]
Parameters = dict[str, Array]


class Column(NamedTuple):
    """The inputs that a kernel uses: their indices, and their scales."""

    columns: tuple[int, ...]
    units: Units

    @property
    def length(self) -> Float[Array, " k"]:
        return self.units.length[jnp.array(self.columns)]

    @property
    def spacing(self) -> Float[Array, " k"]:
        return self.units.spacing[jnp.array(self.columns)]

    @property
    def waves(self) -> tuple[Float[Array, " q"], Float[Array, " q"]]:
        """Frequencies and amplitudes of the waves along the one column."""
        (j,) = self.columns
        return self.units.frequencies[j], self.units.amplitudes[j]


class AbstractKernel(eqx.Module):
    """A covariance function. `a + b` and `a * b` are kernels again."""

    def __add__(self, other: Any) -> "Sum":
        _refuse_no_kernel(other, "+")
        return Sum((*parts(self, Sum), *parts(other, Sum)))

    def __mul__(self, other: Any) -> "Product":
        _refuse_no_kernel(other, "*")
        return Product((*parts(self, Product), *parts(other, Product)))


def parts(
    kernel: AbstractKernel, kind: "type[Sum] | type[Product]"
) -> tuple[AbstractKernel, ...]:
    return kernel.parts if isinstance(kernel, kind) else (kernel,)


def _refuse_no_kernel(value: Any, sign: str) -> None:
    if not isinstance(value, AbstractKernel):
        raise ValueError(
            f"`kernel {sign} {short(value)}`: it takes two kernels; each term of a sum has "
            "an sd of its own already."
        )


def _kernels(kind: str):
    def convert(value: Any) -> tuple[AbstractKernel, ...]:
        listed = tuple(value) if isinstance(value, list | tuple) else ()
        if not listed or not all(isinstance(k, AbstractKernel) for k in listed):
            raise ValueError(
                f"`{kind}(parts={short(value)})`: it takes a list of one kernel or more."
            )
        return listed

    return convert


class Sum(AbstractKernel):
    """$k_1 + k_2 + …$, written `k1 + k2`."""

    parts: tuple[AbstractKernel, ...] = eqx.field(converter=_kernels("Sum"))


class Product(AbstractKernel):
    """$k_1 k_2 …$, written `k1 * k2`."""

    parts: tuple[AbstractKernel, ...] = eqx.field(converter=_kernels("Product"))


def _name(value: Any) -> str:
    if not (isinstance(value, str) and value.isidentifier()):
        raise ValueError(
            f"`kernel(name={short(value)})`: sites are called after kernels, so it takes a "
            "name as of a variable, such as `season`."
        )
    return value


def _input(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(
            f"`kernel(on={short(value)})`: it takes the name of one input, such as `x0`."
        )
    return value


def as_kernel(kind: str) -> Callable[[Any], AbstractKernel]:
    """A field converter that refuses what is no kernel, for a class of that name."""

    def convert(value: Any) -> AbstractKernel:
        if not isinstance(value, AbstractKernel):
            raise ValueError(
                f"`{kind}(kernel={short(value)})`: it takes a kernel, such as "
                "`gp.Matern()` or `gp.Periodic() + gp.Matern(0.5)`."
            )
        Structure.of(value)  # refuses names that are there twice
        return value

    return convert


class AbstractLeaf(AbstractKernel):
    """A simple kernel, of variance one.

    Attributes:
        on: the name of the one input that it is a function of. By default all of them.
        name: the end of the names of its sites. By default its kind, with a number if
            there are several.
    """

    on: eqx.AbstractVar[str | None]
    name: eqx.AbstractVar[str | None]

    kind: ClassVar[str]
    one_input: ClassVar[bool] = False
    own_sd: ClassVar[bool] = False  # whether it has the sd of its term
    instead: ClassVar[str] = ""  # what to use where a Markov state is needed

    @abstractmethod
    def priors(self, column: Column) -> Priors:
        """The prior of each parameter, by name, in units of the data."""

    @abstractmethod
    def axes(self) -> dict[str, tuple[str, ...]]:
        """Names of the axes of each parameter: `input`, or one of its own."""

    def coords(self, column: Column) -> dict[str, Any]:
        """Labels along the axes of its own, by the name that `axes` has for them."""
        return {}

    @abstractmethod
    def between(
        self, θ: Parameters, column: Column, x: Float[Array, "n k"], x2: Float[Array, "m k"]
    ) -> Float[Array, "n m"]:
        """The correlation of all pairs of places."""

    def on_grid(
        self, θ: Parameters, column: Column, x: Float[Array, "n 1"]
    ) -> Float[Array, "n n"]:
        """The correlation of the places of an even grid."""
        return self.between(θ, column, x, x)

    @property
    def is_chain(self) -> bool:
        """Whether a function of one input with this kernel has a Markov state."""
        return False

    def process(
        self, θ: Parameters, column: Column, variance: Any, num_waves: int
    ) -> state_space.AbstractProcess:
        """The kernel times `variance`, as a Markov chain along its one input.

        Args:
            θ: its parameters.
            column: the input.
            variance: of the function, in squared units of the output.
            num_waves: how many waves stand for a function that repeats.

        Raises:
            NotImplementedError: if it has no Markov state, see `is_chain`.
        """
        raise NotImplementedError(type(self).__name__)


class AbstractStationary(AbstractLeaf):
    """A function of the lag $d = x - x'$."""

    @abstractmethod
    def at(
        self, θ: Parameters, column: Column, lag: Float[Array, "*b k"]
    ) -> Float[Array, "*b"]:
        """The correlation at a lag, in units of the inputs."""

    def between(self, θ, column, x, x2):
        return self.at(θ, column, x[:, None] - x2)

    def on_grid(self, θ, column, x):
        return by_lag(self.at(θ, column, x - x[0]))


def scale_prior(mode: Float[Array, "*q"]) -> dist.Distribution:
    """The prior of an sd: gamma of shape 2, with the highest density at `mode`.

    Its density is zero at zero, but only in proportion, so that a maximum of the posterior
    density does not end there, and data that need a small sd can have one.

    Source: Chung, Rabe-Hesketh, Dorie, Gelman & Liu (2013), "A nondegenerate penalized
    likelihood estimator for variance parameters in multilevel models".
    """
    base = dist.Gamma(2.0 * jnp.ones_like(mode), 1.0).to_event(mode.ndim)
    return InUnits(base, [AffineTransform(0.0, mode, dist.constraints.positive)])


def level_prior(units: Units) -> dist.Distribution:
    """The prior of the level: normal about the mean of the output, with its sd."""
    around = [AffineTransform(units.y_mean, units.y_sd)]
    return InUnits(dist.Normal(jnp.zeros_like(units.y_mean), 1.0), around)


def _lengthscale(column: Column) -> dist.Distribution:
    low, high = jnp.log(column.spacing), jnp.log(LONGEST * column.length)
    # One site per input, or a number if there is one input only.
    center, spread = jnp.exp((low + high) / 2), (high - low) / (2 * TWO_SIDED)
    one = len(column.columns) == 1
    return log_normal(center[0], spread[0]) if one else log_normal(center, spread)


def _distance(θ: Parameters, lag: Float[Array, "*b k"]) -> Float[Array, "*b"]:
    """Squared distance in lengthscales."""
    return jnp.sum((lag / θ["lengthscale"]) ** 2, -1)


class SquaredExponential(AbstractStationary):
    r"""$e^{-r²/2}$, of functions with all derivatives.

    $r² = \sum_j d_j² / ℓ_j²$. Site: `lengthscale_<name>` $ℓ$, in units of the inputs, one
    per input (a number if there is one input). Prior: log-normal, 98 % between one
    spacing of the points and twice the length of the data.
    """

    on: str | None = eqx.field(default=None, converter=optional(_input))
    name: str | None = eqx.field(default=None, converter=optional(_name))

    kind: ClassVar[str] = "squared_exponential"
    instead: ClassVar[str] = "`gp.Matern(2.5)`"

    def priors(self, column):
        return {"lengthscale": _lengthscale(column)}

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
    on: str | None = eqx.field(default=None, converter=optional(_input))
    name: str | None = eqx.field(default=None, converter=optional(_name))

    kind: ClassVar[str] = "matern"

    def priors(self, column):
        return {"lengthscale": _lengthscale(column)}

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
    on: str | None = eqx.field(default=None, converter=optional(_input))
    name: str | None = eqx.field(default=None, converter=optional(_name))

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


class AbstractFixed(AbstractLeaf):
    """A simple kernel without sites of its own."""

    def priors(self, column):
        return {}

    def axes(self):
        return {}


class Linear(AbstractFixed):
    r"""$(x - c)(x' - c) / h²$, of straight lines through zero at the middle of the data.

    $c$ is the middle of the data and $h$ half their length, so that the sd of the term is
    that of the line at both ends. It has no sites of its own.
    """

    on: str | None = eqx.field(default=None, converter=optional(_input))
    name: str | None = eqx.field(default=None, converter=optional(_name))

    kind: ClassVar[str] = "linear"
    instead: ClassVar[str] = "a `gp.Matern()` of its own for the trend"
    one_input: ClassVar[bool] = True

    def between(self, θ, column, x, x2):
        return _from_middle(column, x) @ _from_middle(column, x2).T


class Drift(AbstractFixed):
    r"""A line whose slope wanders: an integrated Wiener process, zero mid-way.

    With $v = \min(|t|, |t'|)$, where $t$ is the distance of $x$ from the middle of the data
    in half their lengths,

    $$k(x, x') = 3 v² (v / 3 + |t - t'| / 2)$$

    on one side of the middle, and zero between its two sides. The sd of the term is that at
    both ends of the data. Beyond them a prediction goes on along the last slope, with a
    band that widens with the distance to the power 1.5, where that of a stationary kernel
    returns to the level. Add a `Linear()`, for the slope in the middle. It has no sites of
    its own.

    Source: Wahba (1978), "Improper priors, spline smoothing and the problem of guarding
    against model errors in regression"; Harvey (1989), the local linear trend.
    """

    on: str | None = eqx.field(default=None, converter=optional(_input))
    name: str | None = eqx.field(default=None, converter=optional(_name))

    kind: ClassVar[str] = "drift"
    instead: ClassVar[str] = "a `gp.Matern()` of its own for the trend"
    one_input: ClassVar[bool] = True

    def between(self, θ, column, x, x2):
        t, t2 = _from_middle(column, x), _from_middle(column, x2).T
        v = jnp.minimum(jnp.abs(t), jnp.abs(t2))
        return jnp.where(t * t2 > 0, 3 * v**2 * (v / 3 + jnp.abs(t - t2) / 2), 0.0)


def _from_middle(column: Column, x: Float[Array, "n 1"]) -> Float[Array, "n 1"]:
    """Distance from the middle of the data, in half their lengths."""
    (j,), half = column.columns, column.length[0] / 2
    return (x - column.units.low[j] - half) / half


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
    on: str | None = eqx.field(default=None, converter=optional(_input))
    name: str | None = eqx.field(default=None, converter=optional(_name))

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
    on: str | None = eqx.field(default=None, converter=optional(_input))
    name: str | None = eqx.field(default=None, converter=optional(_name))

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


class Structure(NamedTuple):
    """A kernel as a sum of products.

    Attributes:
        leaves: the simple kernels, by their names.
        terms: the names of the leaves of each term.
    """

    leaves: dict[str, AbstractLeaf]
    terms: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, kernel: AbstractKernel) -> "Structure":
        found: list[AbstractLeaf] = []
        terms = _expanded(kernel, found)
        names = _names(found)
        named = dict(zip(names, found, strict=True))
        return cls(named, tuple(tuple(names[i] for i in term) for term in terms))

    def spacings(self, data: Any) -> dict[str, Array]:
        """The spacing of the points in the direction of each lengthscale, by site."""
        columns = {name: columns_of(leaf, data) for name, leaf in self.leaves.items()}
        return {
            f"lengthscale_{name}": column.spacing
            for name, column in columns.items()
            if not isinstance(self.leaves[name], Periodic | Linear | Drift | SpectralGrid)
        }

    def has_own_sd(self, term: tuple[str, ...]) -> bool:
        """Whether a leaf of the term has the sds, so that the term needs none."""
        return any(self.leaves[name].own_sd for name in term)

    def priors(self, data: Any) -> Priors:
        """The prior of each site of the kernel, in the units of the data."""
        priors: Priors = {
            f"sd_{title(term)}": scale_prior(SD * data.units.y_sd)
            for term in self.terms
            if not self.has_own_sd(term)
        }
        for name, leaf in self.leaves.items():
            for parameter, prior in leaf.priors(columns_of(leaf, data)).items():
                priors[f"{parameter}_{name}"] = prior
        return priors

    def dims(self, data: Any) -> dict[str, tuple[str, ...]]:
        """Names of the axes of each site of the kernel that has any."""
        dims: dict[str, tuple[str, ...]] = {}
        for name, leaf in self.leaves.items():
            for parameter, axes in leaf.axes().items():
                of_one = len(columns_of(leaf, data).columns) == 1
                if axes == ("input",):
                    dims[f"{parameter}_{name}"] = () if of_one else axes
                else:
                    dims[f"{parameter}_{name}"] = tuple(f"{a}_{name}" for a in axes)
        return dims

    def coords(self, data: Any) -> dict[str, Any]:
        """Labels along the axes of the kernel's own sites."""
        return {
            f"{axis}_{name}": labels
            for name, leaf in self.leaves.items()
            for axis, labels in leaf.coords(columns_of(leaf, data)).items()
        }

    def parameters(self, name: str, sites: Sites, data: Any) -> tuple[Parameters, Column]:
        """The parameters of a leaf, and its inputs."""
        column = columns_of(self.leaves[name], data)
        priors = self.leaves[name].priors(column)
        return {p: sites[f"{p}_{name}"] for p in priors}, column

    def variance(self, term: tuple[str, ...], sites: Sites) -> Any:
        """By which the kernel of a term is multiplied: 1 if a leaf has the sds."""
        return 1.0 if self.has_own_sd(term) else sites[f"sd_{title(term)}"] ** 2

    def covariance(
        self,
        sites: Sites,
        data: Observed,
        x: Float[Array, "n d"] | None = None,
        x2: Float[Array, "m d"] | None = None,
    ) -> Float[Array, "t n m"]:
        """The covariance of each term, of places `x` and `x2`, by default the data's."""

        def matrix(leaf, θ, column):
            chosen = jnp.array(column.columns)
            if x is None and x2 is None and data.even:
                return leaf.on_grid(θ, column, data.x[:, chosen])
            one = data.x if x is None else x
            two = data.x if x2 is None else x2
            return leaf.between(θ, column, one[:, chosen], two[:, chosen])

        return self._of_terms(sites, data, matrix)

    def at(
        self, sites: Sites, data: Any, lag: Float[Array, "*b d"]
    ) -> Float[Array, "t *b"]:
        """The covariance of each term at a lag, if all kernels are stationary."""

        def value(leaf, θ, column):
            return leaf.at(θ, column, lag[..., jnp.array(column.columns)])

        return self._of_terms(sites, data, value)

    @property
    def is_stationary(self) -> bool:
        """Whether all kernels are functions of the lag."""
        return all(isinstance(leaf, AbstractStationary) for leaf in self.leaves.values())

    def _of_terms(self, sites, data, of_leaf):
        """The sum over terms is left to the caller: `of_leaf(leaf, parameters, column)`."""
        values = {}
        for name, leaf in self.leaves.items():
            values[name] = of_leaf(leaf, *self.parameters(name, sites, data))
        every = []
        for term in self.terms:
            value = math.prod(values[name] for name in term)
            every.append(value * self.variance(term, sites))
        return jnp.stack(every)


def unsigned(sites: Sites) -> Sites:
    """The same draw with frequencies without their signs, which kernels do not have."""
    return {k: jnp.abs(v) if k.startswith("frequency_") else v for k, v in sites.items()}


def title(term: tuple[str, ...]) -> str:
    return "_".join(term)


def _expanded(kernel: AbstractKernel, found: list) -> list[tuple[int, ...]]:
    if isinstance(kernel, Sum):
        return [term for part in kernel.parts for term in _expanded(part, found)]
    if isinstance(kernel, Product):
        terms: list[tuple[int, ...]] = [()]
        for part in kernel.parts:
            new = _expanded(part, found)
            terms = [(*a, *b) for a in terms for b in new]
        return terms
    found.append(kernel)
    return [(len(found) - 1,)]


def _names(leaves: list[AbstractLeaf]) -> list[str]:
    kinds = [leaf.kind if leaf.name is None else leaf.name for leaf in leaves]
    names = []
    for i, (kind, leaf) in enumerate(zip(kinds, leaves, strict=True)):
        unnamed = leaf.name is None and kinds.count(kind) > 1
        names.append(f"{kind}{kinds[: i + 1].count(kind)}" if unnamed else kind)
    twice = [name for i, name in enumerate(names) if name in names[:i]]
    if twice:
        raise ValueError(
            f"`kernel` has two kernels called `{twice[0]}`; give each a `name` of its own."
        )
    return names


def columns_of(leaf: AbstractLeaf, data: Any) -> Column:
    """The inputs that a simple kernel is a function of."""
    kind = type(leaf).__name__
    if leaf.on is not None:
        if leaf.on not in data.inputs:
            raise ValueError(
                f"`{kind}(on={leaf.on!r})`: the data have the inputs "
                f"{', '.join(data.inputs)}."
            )
        return Column((data.inputs.index(leaf.on),), data.units)
    if leaf.one_input and len(data.inputs) > 1:
        raise ValueError(
            f"`{kind}()` is a function of one input, and the data have "
            f"{', '.join(data.inputs)}; choose one, `{kind}(on={data.inputs[0]!r})`."
        )
    return Column(tuple(range(len(data.inputs))), data.units)
