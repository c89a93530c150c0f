r"""The model: a Gaussian process whose kernel is a spectral mixture, given an equation."""

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float, PRNGKeyArray
from numpyro.distributions.transforms import AffineTransform, ExpTransform

from probkit.distributions import FactorNormal, InUnits
from probkit.gp import SpectralMixture
from probkit.linalg import Regression, mode_products, regress
from probkit.model import AbstractModel
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.models.pde import system
from probkit.models.pde.problem import Problem
from probkit.models.pde.system import Orders, Rows, Span
from probkit.validate import as_array, positive, short, whole

Envelope = Literal["student_t", "gaussian"]

# How far the conditions on faces are from exact, relative to the size of the solution.
FACE_SD = 1e-9
# Priors: how far from the start a kernel may be, in logarithms and in cycles over the
# domain.
WEIGHT_SPREAD, LENGTHSCALE_SPREAD, FREQUENCY_SPREAD = 1.0, 0.5, 0.1
# Lengthscales at the start, of a trend and of a tone, in lengths of the domain.
TREND, TONE = 0.5, 8.0
# The reference solution, against which the band is calibrated, is that much stricter.
STRICTER = 1e-2
MORE_RANK = 4
MOST_NEWTON = 30
# Functions of an axis in two and three dimensions, for a trend and for each tone, and
# functions to test against for each of them.
TREND_RANK, TONE_RANK, TEST_SHARE = 12, 10, 1.5
LEAST_RANK, MOST_RANK = {2: 20, 3: 10}, {2: 40, 3: 12}
POINTS_AT_ONCE = 512
# Limits of the checks: the residual and the misfit relative to their sizes, and how wide
# a combination of u may be left, relative to the widest a priori; seen at about so many
# points.
LARGEST_RESIDUAL, LARGEST_MISFIT, WATCHED = 1e-4, 1e-5, 200
# Exact conditions leave 1e-10 to 1e-5 of the prior's width to a problem that is well
# posed, and 1e-4 to 1 to one that is not; noisy observations leave what they leave.
OPEN_EXACT, OPEN_NOISY = 3e-5, 0.5
# Points an axis at which two solutions are compared.
AT_MOST = {1: 1000, 2: 60, 3: 12}
NEWTON_TOLERANCE = 1e-11
STEP_SIZES = (1.0, 0.5, 0.25, 0.1, 0.03, 0.01)


# Derivatives of u on a grid, by their orders.
Fields = dict[Orders, Float[Array, "..."]]


class Solution(eqx.Module):
    r"""The posterior of $u$ for one draw of the kernel.

    Attributes:
        spans: the functions of each axis.
        root: $R$ with $R^T R$ the inverse covariance of the coefficients, `(r, r)`.
        mean: mean of the coefficients, `(r,)`.
        band: what standard deviations are multiplied by.
    """

    spans: tuple[Span, ...]
    root: Float[Array, "r r"]
    mean: Float[Array, " r"]
    band: Float[Array, ""]

    def sample(self, key: PRNGKeyArray) -> Float[Array, " r"]:
        """Coefficients of one draw."""
        white = jax.random.normal(key, self.mean.shape)
        return self.mean + self.band * jax.scipy.linalg.solve_triangular(self.root, white)

    def derivative(self, grid, orders: Orders, z=None) -> Float[Array, "..."]:
        """A derivative of the mean, or of a draw, on a tensor grid."""
        z = self.mean if z is None else z
        return system.derivative(z, self.spans, grid, orders)

    def sd(self, rows: Float[Array, "n r"]) -> Float[Array, " n"]:
        """Standard deviations of linear functions of the coefficients."""
        half = jax.scipy.linalg.solve_triangular(self.root, rows.T, trans=1)
        return self.band * jnp.linalg.norm(half, axis=0)

    def sd_on(self, grid) -> Float[Array, "..."]:
        """Standard deviations of $u$ on a tensor grid, a slice of the first axis each."""
        first, *others = (s(x) for s, x in zip(self.spans, grid, strict=True))
        rest = system.kron(others) if others else jnp.ones((1, 1))
        shape = tuple(len(x) for x in grid)
        if not others:
            return self.sd(first)
        each = jax.lax.map(lambda row: self.sd(jnp.kron(row[None], rest)), first)
        return each.reshape(shape)


class Start(NamedTuple):
    """Where the kernel of one axis starts, arrays of shape `(q,)`."""

    weight: Array
    frequency: Array
    lengthscale: Array


def _frequencies(given: Any) -> tuple[tuple[str, tuple[float, ...]], ...]:
    pairs = tuple(given.items()) if isinstance(given, Mapping) else given
    listed = isinstance(pairs, list | tuple)
    if not listed or not all(isinstance(p, list | tuple) and len(p) == 2 for p in pairs):
        raise ValueError(
            f"`SpectralGP(frequencies={short(given)})`: it takes a dict from axes to "
            "frequencies in cycles per unit, such as `{'x': [15.9]}`."
        )
    checked = []
    for axis, values in pairs:
        array = np.asarray(as_array(values, f"SpectralGP(frequencies={{{axis!r}: ...}})"))
        if array.ndim > 1 or (array <= 0).any():
            raise ValueError(
                f"`SpectralGP(frequencies={{{axis!r}: {short(values)}}})`: it takes a list "
                "of positive numbers; the trend, of frequency zero, is always there."
            )
        checked.append((str(axis), tuple(float(f) for f in array.reshape(-1))))
    return tuple(checked)


def _or_none(name: str):
    def convert(given: Any) -> float | None:
        return None if given is None else positive(f"SpectralGP({name}")(given)

    return convert


class SpectralGP(AbstractModel):
    r"""$u \sim GP\bigl(0, \prod_j k_j(x_j - x_j')\bigr)$, given that $P(u) = 0$ on a grid.

    $$k_j(d) = \sum_q w_{jq}\, E(d / ℓ_{jq}) \cos(2π μ_{jq} d)$$

    with the envelope $E$ of a Gaussian or of Matérn-5/2, whose spectral bumps are
    Gaussian or Student-t. The solution is integrated out exactly, where the equation is
    linear; where it is not, to second order about its mean, found by Gauss-Newton.

    Sites, for each axis: `weight_<axis>` $w$, squared units of $u$ (on axes after the
    first only ratios count); `frequency_<axis>` $μ$, cycles per unit of the axis;
    `lengthscale_<axis>` $ℓ$, units of the axis. `noise_sd` of the observations, unless
    they know it; `equation_sd`, if it is to be learned; and the problem's unknown
    coefficients, by their names.

    The priors are log-normal and normal about a start: a trend (frequency zero), and a
    tone for each peak in the spectrum of what the problem tells.

    Attributes:
        envelope: "gaussian" or "student_t". Solutions under the second have fewer
            derivatives and take a higher `rank`.
        frequencies: by axis, those to start from instead, without the trend's.
        equation_sd: how far the residual may be from zero, relative to its size a
            priori: 1e-9 to solve, some 1e-3 under noisy observations, None to learn it
            from them where the equation is itself in doubt.
        num_nodes: waves that stand for a bump of the spectrum. Lengthscales shorter than
            about `length / num_nodes` need more.
        rank: the number of functions of each axis; by default all waves in one
            dimension, in more a number that follows from the number of tones.
        calibrated: whether bands are scaled by a second, stricter solution. The exact
            posterior takes the tolerance `equation_sd` for noise, which nobody added, and
            its band is far too wide.

    Source: Fang et al. (2024), "Solving high frequency and multi-scale PDEs with Gaussian
    processes", arXiv 2311.04465: kernel and collocation.
    Departs: $u$ is integrated out, where the paper maximises over it; conditions on faces
    are all but exact, where the paper weights them; proper priors, where the paper's is
    flat in $\log w$; frequencies start at those of the data, where the paper's are spread
    evenly.
    """

    envelope: Envelope = "gaussian"
    frequencies: tuple[tuple[str, tuple[float, ...]], ...] = eqx.field(
        default=(), converter=_frequencies
    )
    equation_sd: float | None = eqx.field(default=1e-9, converter=_or_none("equation_sd"))
    num_nodes: int = eqx.field(default=24, converter=whole("SpectralGP(num_nodes", 4))
    rank: int | None = eqx.field(
        default=None,
        converter=lambda r: None if r is None else whole("SpectralGP(rank", 2)(r),
    )
    calibrated: bool = True

    def __check_init__(self):
        if self.envelope not in get_args(Envelope):
            raise ValueError(
                f"`SpectralGP(envelope={short(self.envelope)})`: it takes one of "
                f"{', '.join(map(repr, get_args(Envelope)))}."
            )

    # The program.

    def __call__(self, problem: Problem) -> None:
        priors = self.priors(problem)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        self.observe(sites, problem, self.fields(sites, problem))

    def observe(self, sites: Sites, problem: Problem, fields: Fields) -> None:
        """The likelihood: of a residual of zero, or of observations given that.

        Where there are observations, the equation is a law under which they are read, and
        no observation itself: that a residual is exactly zero is least surprising under
        the smoothest kernel and the smallest coefficients, and says nothing of either.
        Without them, it is what the source tells of the kernel.

        Args:
            sites: one draw.
            problem: the problem.
            fields: the derivatives of $u$ about which the residual is linearised.
        """
        spans = self.spans(sites, problem)
        rows = self.rows(sites, problem, spans, fields)
        if problem.values is None:
            zero = FactorNormal(rows.loc, rows.factor, rows.noise_sd)
            numpyro.sample("equation", zero, obs=rows.value)
        else:
            given = regress(*_whitened(rows))
            predicted = self._predicted(sites, problem, spans, given)
            numpyro.sample("values", predicted, obs=problem.values)

    def priors(self, problem: Problem) -> dict[str, dist.Distribution]:
        """The prior of each site."""
        self._refuse(problem)
        priors: dict[str, dist.Distribution] = {}
        starts = self.starts(problem)
        for axis, start, length in zip(
            problem.axes, starts, _lengths(problem), strict=True
        ):
            logs = {
                "weight": (start.weight, WEIGHT_SPREAD),
                "lengthscale": (start.lengthscale, LENGTHSCALE_SPREAD),
            }
            for name, (center, spread) in logs.items():
                priors[f"{name}_{axis}"] = _log_normal(center, spread)
            priors[f"frequency_{axis}"] = _normal(
                start.frequency, FREQUENCY_SPREAD / length
            )
        if problem.values is not None and problem.noise_sd is None:
            scale = jnp.std(problem.values)
            priors["noise_sd"] = InUnits(
                dist.HalfNormal(1.0), [AffineTransform(0.0, scale)]
            )
        if self.equation_sd is None:
            priors["equation_sd"] = _log_normal(jnp.asarray(1e-2), 2.0)
        for name, low, high in problem.unknown:
            priors[name] = dist.Uniform(low, high)
        return priors

    def _refuse(self, problem: Any) -> None:
        if not isinstance(problem, Problem):
            raise ValueError(
                f"`SpectralGP` takes a `pde.Problem`, not `{type(problem).__name__}`."
            )
        for axis, _ in self.frequencies:
            if axis not in problem.axes:
                raise ValueError(
                    f"`SpectralGP(frequencies=...)` names the axis {axis!r}; the problem "
                    f"has {', '.join(problem.axes)}."
                )
        if self.equation_sd is None and problem.values is None:
            raise ValueError(
                "`SpectralGP(equation_sd=None)` is to be learned, but only observations "
                "tell how far the equation is off: give `Problem(observations=...)`, or a "
                "small number."
            )

    def starts(self, problem: Problem) -> tuple[Start, ...]:
        """Where the kernel of each axis starts."""
        given = dict(self.frequencies)
        size = problem.size
        lengths = _lengths(problem)
        starts = []
        for j, (axis, tones) in enumerate(zip(problem.axes, problem.tones, strict=True)):
            frequency, amplitude = tones
            if axis in given:
                frequency = jnp.asarray(given[axis], float)
                amplitude = jnp.full(frequency.shape, size)
            share = jnp.clip((amplitude / size) ** 2, 1e-6, 1.0)
            weight = jnp.concatenate([jnp.ones(1), share])
            relative = jnp.where(jnp.arange(weight.size) == 0, TREND, TONE)
            starts.append(
                Start(
                    weight * size**2 if j == 0 else weight,
                    jnp.concatenate([jnp.zeros(1), frequency]),
                    relative * lengths[j],
                )
            )
        return tuple(starts)

    # The solution as coefficients.

    def mixtures(self, sites: Sites, problem: Problem) -> tuple[SpectralMixture, ...]:
        """The kernel of each axis."""
        kernels = []
        for j, axis in enumerate(problem.axes):
            w = sites[f"weight_{axis}"]
            # A factor could move from axis to axis; all but the first have variance one.
            weight = w if j == 0 else w / w.sum()
            frequency = sites[f"frequency_{axis}"]
            lengthscale = sites[f"lengthscale_{axis}"]
            kernels.append(SpectralMixture(weight, frequency, lengthscale, self.envelope))
        return tuple(kernels)

    def spans(
        self, sites: Sites, problem: Problem, *, strict: bool = False
    ) -> tuple[Span, ...]:
        """The functions of each axis that carry the prior; `strict` some more of them."""
        mixtures, ranks = self.mixtures(sites, problem), self.ranks(problem)
        if strict:
            ranks = tuple(None if r is None else r + MORE_RANK for r in ranks)
        return tuple(
            Span.of(mixture, x, rank, self.num_nodes)
            for mixture, x, rank in zip(mixtures, problem.grid, ranks, strict=True)
        )

    def ranks(self, problem: Problem) -> tuple[int | None, ...]:
        """How many functions each axis has; None for all."""
        if self.rank is not None:
            return (self.rank,) * len(problem.axes)
        if len(problem.axes) == 1:
            return (None,)
        counts = [self._num_tones(problem, j) for j in range(len(problem.axes))]
        least, most = LEAST_RANK[len(problem.axes)], MOST_RANK[len(problem.axes)]
        return tuple(min(max(least, TREND_RANK + TONE_RANK * q), most) for q in counts)

    def _num_tones(self, problem: Problem, j: int) -> int:
        given = dict(self.frequencies)
        axis = problem.axes[j]
        return len(given[axis]) if axis in given else problem.tones[j].frequency.size

    def tests(
        self, problem: Problem, grid, *, strict: bool = False
    ) -> tuple[Array, ...] | None:
        """Functions that residuals are tested against; None for the points of the grid.

        They do not depend on the sites: what is observed may not.
        """
        if len(problem.axes) == 1:
            return None
        start = self.start_sites(problem)
        spans = self.spans(start, problem, strict=strict)
        functions = []
        for j, (span, x) in enumerate(zip(spans, grid, strict=True)):
            orders = {o[j] for o in problem.equation.orders} | {0}
            count = round(TEST_SHARE * span(x[:1]).shape[1])
            functions.append(system.test_functions(span, x, orders, count))
        return tuple(functions)

    def start_sites(self, problem: Problem) -> Sites:
        """The sites at the start of a search: the centre of the priors."""
        sites: Sites = {}
        for axis, start in zip(problem.axes, self.starts(problem), strict=True):
            sites |= {f"{name}_{axis}": value for name, value in start._asdict().items()}
        if problem.values is not None and problem.noise_sd is None:
            sites["noise_sd"] = 0.1 * jnp.std(problem.values)
        if self.equation_sd is None:
            sites["equation_sd"] = jnp.asarray(1e-2)
        for name, low, high in problem.unknown:
            sites[name] = jnp.asarray((low + high) / 2)
        return sites

    def unknowns(self, sites: Sites, problem: Problem) -> dict[str, Array]:
        """The unknown coefficients of the equation."""
        return {name: sites[name] for name, _, _ in problem.unknown}

    def units(self, problem: Problem) -> tuple[Array, Array]:
        r"""Prior sd of $u$ and of the residual, at the start of the kernel."""
        start = self.start_sites(problem)
        kernels = self.mixtures(start, problem)
        operator = problem.equation.jacobian(
            self.zero(problem), self.unknowns(start, problem)
        )
        variance = jnp.zeros(())
        for a, c in operator.items():
            for b, e in operator.items():
                # cov(∂^a u, ∂^b u) at one place
                same = [
                    (-1) ** j * k(jnp.zeros(()), order=i + j)
                    for k, i, j in zip(kernels, a, b, strict=True)
                ]
                variance = variance + jnp.mean(c * e) * jnp.prod(jnp.stack(same))
        return problem.size, jnp.sqrt(variance)

    def rows(
        self, sites: Sites, problem: Problem, spans, fields: Fields, *, strict: bool = False
    ) -> Rows:
        """Conditions on faces, then the residual; `strict` on midpoints, for reference."""
        equation = problem.held_out if strict else problem.equation
        about = system.linearise(equation, fields, self.unknowns(sites, problem))
        share = self.equation_sd if self.equation_sd is not None else sites["equation_sd"]
        scale, residual_scale = self.units(problem)
        grid = problem.midpoints if strict else problem.grid
        tolerance = STRICTER if strict else 1.0
        tests = self.tests(problem, problem.grid, strict=strict)
        faces = [
            system.condition_rows(
                condition,
                spans,
                problem.grid,
                tests,
                FACE_SD * scale * self._per_length(problem, condition),
            )
            for condition in problem.conditions
        ]
        between = self.tests(problem, grid, strict=True) if strict else tests
        inside = system.equation_rows(
            about, spans, grid, between, share * tolerance * residual_scale
        )
        return system.stacked([*faces, inside])

    def _per_length(self, problem: Problem, condition) -> Array:
        """The size of a derivative, relative to that of u."""
        kernel = self.mixtures(self.start_sites(problem), problem)[condition.axis]
        zero = jnp.zeros(())
        same = (-1) ** condition.order * kernel(zero, order=2 * condition.order)
        return jnp.sqrt(same / kernel(zero))

    # The solution itself.

    def fields(self, sites: Sites, problem: Problem) -> Fields:
        """What to linearise the equation about: zero, or its solution for these sites."""
        zero = self.zero(problem)
        if problem.equation.is_linear:
            return zero
        # Of the second order in how far the fields are from the solution, and so is what a
        # derivative through them would add.
        return self.newton(jax.lax.stop_gradient(sites), problem, zero).fields

    def zero(self, problem: Problem) -> Fields:
        """The derivatives of $u = 0$."""
        return {orders: jnp.zeros(problem.shape) for orders in problem.equation.orders}

    def newton(self, sites: Sites, problem: Problem, fields: Fields) -> "Newton":
        """Gauss-Newton from given fields, or from the observations, if there are any.

        Each step is the best of a few lengths.
        """
        spans = self.spans(sites, problem)
        unknowns = self.unknowns(sites, problem)
        tests = self.tests(problem, problem.grid)
        num = problem.equation.orders
        num_values = 0 if problem.values is None else problem.values.size

        def derivatives(z) -> Fields:
            return {o: system.derivative(z, spans, problem.grid, o) for o in num}

        def badness(z, rows: Rows):
            # Faces and observations are linear; what of the rows is not is told anew.
            residual = problem.equation(derivatives(z), unknowns)
            if tests is not None:
                residual = mode_products(residual, [q.T for q in tests])
            inside = residual.reshape(-1)
            linear = rows.factor @ z + rows.loc - rows.value
            begin = linear.size - num_values - inside.size
            off = linear.at[begin : begin + inside.size].set(inside) / rows.noise_sd
            return z @ z + off @ off

        def step(state: Newton) -> Newton:
            rows = self.rows(sites, problem, spans, state.fields)
            if problem.values is not None:
                rows = system.stacked([rows, self._observed(sites, problem, spans)])
            aim = regress(*_whitened(rows)).mean
            sizes = jnp.asarray(STEP_SIZES)
            tried = state.z + sizes[:, None] * (aim - state.z)
            best = tried[jnp.argmin(jax.vmap(lambda z: badness(z, rows))(tried))]
            new = derivatives(best)
            moved = [jnp.max(jnp.abs(new[o] - state.fields[o])) for o in num]
            size = [jnp.max(jnp.abs(new[o])) for o in num]
            change = jnp.max(jnp.stack(moved) / jnp.maximum(jnp.stack(size), 1e-300))
            return Newton(best, new, change, state.num_steps + 1)

        def going(state: Newton):
            return (state.change > NEWTON_TOLERANCE) & (state.num_steps < MOST_NEWTON)

        pairs = zip(spans, problem.grid, strict=True)
        r = math.prod(span(x[:1]).shape[1] for span, x in pairs)
        z = jnp.zeros(r)
        if problem.values is not None:
            # From a curve through the observations, whatever the equation says.
            observed = self._observed(sites, problem, spans)
            z = regress(*_whitened(observed)).mean
            fields = derivatives(z)
        start = Newton(z, fields, jnp.asarray(jnp.inf), jnp.zeros((), jnp.int32))
        return jax.lax.while_loop(going, step, start)

    def solution(
        self, sites: Sites, problem: Problem, fields: Fields | None = None
    ) -> Solution:
        """The posterior of $u$ for one draw of the sites."""
        if fields is None:
            fields = self.fields(sites, problem)
        spans = self.spans(sites, problem)
        given = regress(*_whitened(self.rows(sites, problem, spans, fields)))
        if problem.values is None:
            root, mean = given.root, given.mean
        else:
            predicted = self._predicted(sites, problem, spans, given)
            M = predicted.factor / predicted.noise_sd[:, None]
            more = regress(M, (problem.values - predicted.loc) / predicted.noise_sd)
            root = more.root @ given.root
            step = jax.scipy.linalg.solve_triangular(given.root, more.mean)
            mean = given.mean + step
        found = Solution(spans, root, mean, jnp.ones(()))
        if not self.calibrated or problem.values is not None or self.equation_sd is None:
            return found
        band = self._band(found, sites, problem)
        return Solution(spans, root, mean, band)

    def _band(self, found: Solution, sites: Sites, problem: Problem) -> Array:
        """How wide the band must be to hold 95 % of the way to a stricter solution.

        That one has other points, the midpoints, and a hundredth of the tolerance; how far
        the two are apart is how far the first is from the truth, if the second is nearer.
        """
        between = {
            o: found.derivative(problem.midpoints, o) for o in problem.held_out.orders
        }
        spans = self.spans(sites, problem, strict=True)
        rows = self.rows(sites, problem, spans, between, strict=True)
        z = regress(*_whitened(rows)).mean
        flat = (0,) * len(problem.axes)
        # Inside: on faces both solutions are told, and say nothing of each other.
        places = _some(problem.midpoints, AT_MOST[len(problem.axes)])
        reference = system.derivative(z, spans, places, flat)
        apart = reference - found.derivative(places, flat)
        return jnp.quantile(jnp.abs(apart) / found.sd_on(places), 0.95) / 1.96

    def _predicted(self, sites, problem, spans, given: Regression) -> FactorNormal:
        """The observations, given the equation."""
        rows = self._observed(sites, problem, spans)
        half = jax.scipy.linalg.solve_triangular(given.root, rows.factor.T, trans=1)
        return FactorNormal(rows.factor @ given.mean, half.T, rows.noise_sd)

    def _observed(self, sites: Sites, problem: Problem, spans) -> Rows:
        """The observations as rows."""
        assert problem.points is not None and problem.values is not None
        flat = (0,) * len(problem.axes)
        factor = system.at_points(spans, problem.points, flat)
        sd = sites["noise_sd"] if problem.noise_sd is None else problem.noise_sd
        zero = jnp.zeros(len(factor))
        return Rows(factor, zero, problem.values, jnp.full(len(factor), sd))

    def canonical(self, sites, data, reference=None):
        """Frequencies without their signs, which the kernel does not have."""
        signed = {f"frequency_{axis}" for axis in data.axes}
        return {k: jnp.abs(v) if k in signed else v for k, v in sites.items()}

    def pointwise(self, sites, data):
        """Of each observation given the others; an equation has no observations."""
        if data.values is None:
            return {}
        spans = self.spans(sites, data)
        rows = self.rows(sites, data, spans, self.fields(sites, data))
        given = regress(*_whitened(rows))
        predicted = self._predicted(sites, data, spans, given)
        return {"values": predicted.leave_one_out(data.values)}

    # In a labelled tree.

    def dims(self, data: Problem) -> dict[str, tuple[str, ...]]:
        named = dict(data.dims())
        for axis in data.axes:
            sites = ("weight", "frequency", "lengthscale")
            named |= {f"{name}_{axis}": (f"component_{axis}",) for name in sites}
        named["equation"] = ("row",)
        named |= {name: () for name in ("noise_sd", "equation_sd")}
        named |= {name: () for name, _, _ in data.unknown}
        named |= {f"solution{part}": data.axes for part in ("", "_mean", "_sd")}
        named |= {f"u{part}": ("point",) for part in ("", "_mean", "_sd")}
        return named

    def coords(self, data: Problem) -> dict[str, Any]:
        counts = {axis: 1 + self._num_tones(data, j) for j, axis in enumerate(data.axes)}
        labels = {f"component_{axis}": np.arange(q) for axis, q in counts.items()}
        grid = {a: np.asarray(x) for a, x in zip(data.axes, data.grid, strict=True)}
        return data.coords() | grid | labels

    # Predictions.

    def inputs(self, given: Any, data: Problem) -> "Inputs":
        d = len(data.axes)
        if isinstance(given, Problem):
            mesh = jnp.meshgrid(*given.grid, indexing="ij")
            points = given.points
            if points is None:
                points = jnp.stack([x.reshape(-1) for x in mesh], 1)
            return Inputs(points, data)
        points = as_array(given, "predict(..., inputs)")
        if d == 1 and points.ndim < 2:
            points = points.reshape(-1, 1)
        if points.ndim != 2 or points.shape[1] != d:
            raise ValueError(
                f"`predict(..., inputs)` has shape {jnp.shape(given)}; it takes points, a "
                f"row each, with a column an axis ({', '.join(data.axes)})."
            )
        return Inputs(points, data)

    def predict(self, sites, inputs, key):
        """`u`, one draw at the points; `u_mean` and `u_sd`, its moments for these sites."""
        solution = self.solution(sites, inputs.problem)
        flat = (0,) * len(inputs.problem.axes)
        z = solution.sample(key)

        def at(points):
            rows = system.at_points(solution.spans, points, flat)
            return rows @ z, rows @ solution.mean, solution.sd(rows)

        points = inputs.points
        if len(points) <= POINTS_AT_ONCE:
            found = at(points)
        else:
            each = lambda point: jax.tree.map(lambda a: a[0], at(point[None]))  # noqa: E731
            found = jax.lax.map(each, points, batch_size=POINTS_AT_ONCE)
        return dict(zip(("u", "u_mean", "u_sd"), found, strict=True))

    def recover(self, sites, data, key):
        """`solution`, one draw on the grid; its exact mean and sd given the sites."""
        solution = self.solution(sites, data)
        flat = (0,) * len(data.axes)
        return {
            "solution": solution.derivative(data.grid, flat, solution.sample(key)),
            "solution_mean": solution.derivative(data.grid, flat),
            "solution_sd": solution.sd_on(data.grid),
        }

    def checks(self, sites, data):
        found = {k: float(v) for k, v in _looked_at(self, sites, data).items()}
        given = self.equation_sd
        tolerance = float(sites["equation_sd"]) if given is None else given
        remedy = (
            "the grid is too coarse, so that a false frequency fits it as well, or the "
            "kernel does not reach the solution: raise `shape`, `rank` or `num_nodes`, "
            "search (`Closed(learn=True)`), or give `frequencies=`"
        )
        return (
            Check(
                "residual between the points",
                found["held_out"],
                "at most",
                max(3 * tolerance, LARGEST_RESIDUAL),
                remedy,
                "rms at midpoints, relative to its size a priori",
            ),
            Check(
                "misfit on faces",
                found["faces"],
                "at most",
                LARGEST_MISFIT,
                "the conditions contradict each other or the equation, or the kernel "
                "cannot follow them: raise `rank` or `num_nodes`",
                "rms, relative to the solution",
            ),
            Check(
                "highest frequency over the grid's",
                found["frequency"],
                "at most",
                1.0,
                "the grid cannot tell this frequency from a lower one: raise `shape`",
                "of the kernel, with two widths of its bump",
            ),
            Check(
                "directions left open",
                int(found["open"]),
                "at most",
                0,
                "the conditions do not determine the solution: tell it on more faces (an "
                "inflow, an initial velocity), or observe it",
                "combinations of u of which little is known",
            ),
        )


@eqx.filter_jit
def _looked_at(model: SpectralGP, sites: Sites, problem: Problem) -> dict[str, Array]:
    """The numbers that the checks are about."""
    fields = model.fields(sites, problem)
    found = model.solution(sites, problem, fields)
    size, residual_size = model.units(problem)
    between = {o: found.derivative(problem.midpoints, o) for o in problem.held_out.orders}
    residual = problem.held_out(between, model.unknowns(sites, problem))
    rows = model.rows(sites, problem, found.spans, fields)
    num = told = sum(condition.values.size for condition in problem.conditions)
    if len(problem.axes) > 1:
        num = sum(_tested_size(model, problem, c) for c in problem.conditions)
    off = (rows.factor @ found.mean + rows.loc - rows.value)[:num]
    # What the conditions say about u where it is wide a priori, and what they leave.
    places = _some(problem.midpoints, math.ceil(WATCHED ** (1 / len(problem.axes))))
    prior = system.kron([s(x) for s, x in zip(found.spans, places, strict=True)])
    after = jax.scipy.linalg.solve_triangular(found.root, prior.T, trans=1)
    widest = jnp.linalg.norm(prior, ord=2)
    open_share = OPEN_EXACT if problem.values is None else OPEN_NOISY
    left = jnp.linalg.svd(after, compute_uv=False)
    highest = [
        jnp.max(jnp.abs(k.frequency) + 2 / (2 * jnp.pi * k.lengthscale)) * 2 * (x[1] - x[0])
        for k, x in zip(model.mixtures(sites, problem), problem.grid, strict=True)
    ]
    return {
        "held_out": jnp.sqrt(jnp.mean(residual**2)) / residual_size,
        "faces": jnp.sqrt(jnp.sum(off**2) / max(1, told)) / size,
        "frequency": jnp.max(jnp.stack(highest)),
        "open": jnp.sum(left > open_share * widest),
    }


def _tested_size(model: SpectralGP, problem: Problem, condition) -> int:
    tests = model.tests(problem, problem.grid)
    assert tests is not None
    sizes = [q.shape[1] for j, q in enumerate(tests) if j != condition.axis]
    return math.prod(sizes)


class Inputs(eqx.Module):
    """Points at which to predict, and the problem that the posterior is of."""

    points: Float[Array, "n d"]
    problem: Problem


class Newton(NamedTuple):
    """The state of a Gauss-Newton iteration."""

    z: Array
    fields: Fields
    change: Array
    num_steps: Array


def _whitened(rows: Rows) -> tuple[Array, Array]:
    sd = rows.noise_sd
    return rows.factor / sd[:, None], (rows.value - rows.loc) / sd


def _some(grid, most: int) -> list[Array]:
    """At most so many points of each axis, anywhere: even steps would fall on nodes."""
    random = np.random.default_rng(0)
    counts = [min(most, len(x)) for x in grid]
    chosen = [random.choice(len(x), n, False) for x, n in zip(grid, counts, strict=True)]
    return [x[np.sort(i)] for x, i in zip(grid, chosen, strict=True)]


def _lengths(problem: Problem) -> list[Array]:
    return [x[-1] - x[0] for x in problem.grid]


def _normal(center: Array, spread) -> dist.Distribution:
    base = dist.Normal(jnp.zeros(center.shape), 1.0).to_event(center.ndim)
    return InUnits(base, [AffineTransform(center, spread)])


def _log_normal(center: Array, spread) -> dist.Distribution:
    base = dist.Normal(jnp.zeros(center.shape), 1.0).to_event(center.ndim)
    return InUnits(base, [AffineTransform(jnp.log(center), spread), ExpTransform()])
