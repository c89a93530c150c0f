r"""The model: a Gaussian process whose kernel is a spectral mixture, given an equation."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array
from numpyro.distributions.transforms import AffineTransform

from probkit.distributions import FactorNormal, InUnits, log_normal
from probkit.gp.mixture import Envelope, as_envelope
from probkit.model import AbstractModel
from probkit.model.density import Sites
from probkit.models.pde import kernels, system
from probkit.models.pde.checks import checks, measured
from probkit.models.pde.problem import Inputs, Problem
from probkit.models.pde.solution import Collocation, Fields, Parameters, Solution, Solver
from probkit.models.pde.spectrum import Tones
from probkit.validate import as_array, optional, pairs, positive, short, whole

# Prior sds of the kernel about its start: of logarithms, and in cycles over the domain.
WEIGHT_SPREAD, LENGTHSCALE_SPREAD, FREQUENCY_SPREAD = 1.0, 0.5, 0.1
# The lengthscale of a trend at the start, in lengths of the domain.
TREND = 0.5
# Functions of an axis in two and three dimensions, for a trend and for each tone.
TREND_RANK, TONE_RANK = 12, 10
LEAST_RANK, MOST_RANK = {2: 20, 3: 10}, {2: 40, 3: 12}
POINTS_AT_ONCE = 512
# Solutions under a Matérn-5/2 envelope have so many derivatives.
ROUGHEST = 2
# Waves per bump of the spectrum, if the user gives no number.
NODES = 24


class Start(NamedTuple):
    """Where the kernel of one axis starts, arrays of shape `(q,)`."""

    weight: Array
    frequency: Array
    lengthscale: Array


def _tones(axis: Any, given: Any) -> tuple[float, ...]:
    array = np.asarray(as_array(given, f"SpectralGP(frequencies={{{axis!r}: ...}})"))
    if array.ndim > 1 or (array <= 0).any():
        raise ValueError(
            f"`SpectralGP(frequencies={{{axis!r}: {short(given)}}})`: it takes a list of "
            "positive numbers; the trend, of frequency zero, is added to them."
        )
    return tuple(float(f) for f in array.reshape(-1))


_FREQUENCIES = pairs(
    "SpectralGP(frequencies",
    "an axis",
    "a dict from axes to frequencies in cycles per unit, such as `{'x': [15.9]}`",
    _tones,
)


def _trend(axis: Any, given: Any) -> float:
    try:
        return positive("lengthscales")(given)
    except ValueError:
        raise ValueError(
            f"`SpectralGP(lengthscales={{{axis!r}: {short(given)}}})`: it takes a positive "
            "number for each axis, the lengthscale of its trend."
        ) from None


_LENGTHSCALES = pairs(
    "SpectralGP(lengthscales",
    "an axis",
    "a dict from axes to lengthscales in units of the axis, such as `{'x': 0.1}`",
    _trend,
)


class SpectralGP(AbstractModel):
    r"""$u \sim GP\bigl(0, \prod_j k_j(x_j - x_j')\bigr)$, given that $P(u) = 0$ on a grid.

    $$k_j(d) = \sum_q w_{jq}\, E(d / ℓ_{jq}) \cos(2π μ_{jq} d)$$

    with the envelope $E$ of a Gaussian or of Matérn-5/2, whose spectral bumps are
    Gaussian or Student-t. The solution is integrated out exactly, where the equation is
    linear; where it is not, to second order about its mean, found by Gauss-Newton.

    Sites, for each axis: `weight_<axis>` $w$, squared units of $u$ (on axes after the
    first only ratios count); `frequency_<axis>` $μ$, cycles per unit of the axis;
    `lengthscale_<axis>` $ℓ$, units of the axis. `noise_sd`, the sd of the observations in
    units of $u$, unless it is given; `equation_sd`, if it is to be estimated; and the
    problem's unknown coefficients, by their names.

    The priors are log-normal and normal about a start: a trend (frequency zero), and one
    tone per peak in the spectrum of the source, of the values on faces and of the
    observations; in one dimension also one per frequency of the equation itself.

    Attributes:
        envelope: "gaussian" or "student_t". Solutions under the second have fewer
            derivatives and need a higher `rank`.
        frequencies: the frequencies to start from instead, by axis, in cycles per unit of
            the axis, without the zero of the trend.
        equation_sd: tolerance of the equation, relative to the prior sd of the residual.
            Use 1e-9 to solve, about 1e-3 with noisy observations, and None to estimate
            it from them, if the equation itself is in doubt.
        num_nodes: waves per bump of the spectrum. Thin layers, of lengthscales shorter than
            a tenth of the axis, need more than 24. By default `pde.Closed` takes 24, and in
            one dimension 96 or 192 if the residual is too large with fewer; the model of
            the fit then has that number. Other methods take 24.
        rank: the number of functions of each axis; by default all waves in one
            dimension, in more a number that follows from the number of tones.
        calibrated: whether posterior sds are multiplied by a factor, such that 95 %
            intervals cover 95 % of the differences to a second, stricter solution. The
            exact posterior treats the tolerance `equation_sd` as noise. Nobody added that
            noise, so that its sds are far too large.
        lengthscales: the lengthscale of the trend to start from instead of half the length
            of the axis, by axis, in units of the axis; the centre of its prior. For
            solutions that have fronts or layers, with more `num_nodes`, or a higher `rank`
            in more than one dimension.

    Raises:
        ValueError: for a setting out of range; in `pk.fit`, for data that are not a
            `pde.Problem`, an axis in `frequencies` or `lengthscales` that the problem does
            not have, or `equation_sd=None` without observations.

    Source: Fang et al. (2024), "Solving high frequency and multi-scale PDEs with Gaussian
    processes", arXiv 2311.04465: kernel and collocation.
    Departs: $u$ is integrated out, where the paper maximises over it; conditions on faces
    are all but exact, where the paper weights them; proper priors, where the paper's is
    flat in $\log w$; frequencies start at those of the data, where the paper's are spread
    evenly.
    """

    envelope: Envelope = eqx.field(default="gaussian", converter=as_envelope("SpectralGP"))
    frequencies: tuple[tuple[str, tuple[float, ...]], ...] = eqx.field(
        default=(), converter=_FREQUENCIES
    )
    equation_sd: float | None = eqx.field(
        default=1e-9, converter=optional(positive("SpectralGP(equation_sd"))
    )
    num_nodes: int | None = eqx.field(
        default=None, converter=optional(whole("SpectralGP(num_nodes", 4))
    )
    rank: int | None = eqx.field(
        default=None, converter=optional(whole("SpectralGP(rank", 2))
    )
    calibrated: bool = True
    lengthscales: tuple[tuple[str, float], ...] = eqx.field(
        default=(), converter=_LENGTHSCALES
    )

    # The program.

    def __call__(self, problem: Problem) -> None:
        priors = self.priors(problem)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        self.observe(sites, problem)

    def observe(
        self,
        sites: Sites,
        problem: Problem,
        fields: Fields | None = None,
        collocation: Collocation | None = None,
    ) -> None:
        """The likelihood: of a residual of zero, or of observations given that.

        Without observations it is the density of the residual, which depends on the kernel
        by the source. With observations it is p(observations | equation). The density of
        the residual itself is left out, because it favours smooth kernels and small
        coefficients whatever the observations are. Of a nonlinear equation one part of it
        stays: by how much the residual of the mean is over its tolerance. It excludes
        kernels with which the equation cannot be solved, because about a solution that is
        none the tangent says nothing.

        Args:
            sites: one draw.
            problem: the problem.
            fields: the derivatives of $u$ about which the residual is linearised; by
                default those of its solution.
            collocation: as for `solver`.
        """
        solver = self.solver(sites, problem, collocation)
        fields = solver.fields() if fields is None else fields
        if problem.values is None:
            rows = solver.rows(fields)
            zero = FactorNormal(rows.loc, rows.factor, rows.noise_sd)
            numpyro.sample("equation", zero, obs=rows.value)
        else:
            given = solver.given(fields)
            if self.excludes(problem):
                excess = solver.excess(fields, given)
                solved = dist.Normal(excess, 1.0).to_event(1)
                numpyro.sample("equation", solved, obs=jnp.zeros(excess.shape))
            predicted = solver.predicted(given)
            numpyro.sample("values", predicted, obs=problem.values)

    def excludes(self, problem: Problem) -> bool:
        """Whether kernels with which the equation cannot be solved are excluded.

        A tolerance that is estimated would grow until none is.
        """
        return not problem.equation.is_linear and self.equation_sd is not None

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
                priors[f"{name}_{axis}"] = log_normal(center, spread)
            priors[f"frequency_{axis}"] = _normal(
                start.frequency, FREQUENCY_SPREAD / length
            )
        if problem.values is not None and problem.noise_sd is None:
            scale = jnp.std(problem.values)
            priors["noise_sd"] = InUnits(
                dist.HalfNormal(1.0), [AffineTransform(0.0, scale)]
            )
        if self.equation_sd is None:
            priors["equation_sd"] = log_normal(jnp.asarray(1e-2), 2.0)
        for name, low, high in problem.numbers:
            priors[name] = dist.Uniform(low, high)
        for varying in problem.varying:
            priors |= {name: dist.Normal(0.0, 1.0) for name in varying.weights}
        return priors

    def _refuse(self, problem: Any) -> None:
        if not isinstance(problem, Problem):
            raise ValueError(
                f"`SpectralGP` takes a `pde.Problem`, not `{type(problem).__name__}`."
            )
        settings = {"frequencies": self.frequencies, "lengthscales": self.lengthscales}
        for setting, by_axis in settings.items():
            for axis, _ in by_axis:
                if axis not in problem.axes:
                    raise ValueError(
                        f"`SpectralGP({setting}=...)` names the axis {axis!r}; the problem "
                        f"has {', '.join(problem.axes)}."
                    )
        orders = [*problem.equation.highest, *(c.order for c in problem.conditions)]
        if self.envelope == "student_t" and max(orders) > ROUGHEST:
            raise ValueError(
                f"`SpectralGP(envelope='student_t')`: its solutions have {ROUGHEST} "
                f"derivatives, and the problem has one of order {max(orders)}; use "
                "'gaussian'."
            )
        if self.equation_sd is None and problem.values is None:
            raise ValueError(
                "`SpectralGP(equation_sd=None)` is estimated from observations, and the "
                "problem has none: give `Problem(observations=...)`, or a small number "
                "such as 1e-9."
            )

    def starts(self, problem: Problem) -> tuple[Start, ...]:
        """Where the kernel of each axis starts."""
        given, trends = dict(self.frequencies), dict(self.lengthscales)
        size = problem.size
        lengths = _lengths(problem)
        starts = []
        for j, (axis, tones) in enumerate(zip(problem.axes, problem.tones, strict=True)):
            if axis in given:
                frequency = jnp.asarray(given[axis], float)
                amplitude = jnp.full(frequency.shape, size)
                tones = Tones.steady(frequency, amplitude, lengths[j])
            share = jnp.clip((tones.amplitude / size) ** 2, 1e-6, 1.0)
            weight = jnp.concatenate([jnp.ones(1), share])
            trend = jnp.reshape(trends.get(axis, TREND * problem.longest[j]), 1)
            starts.append(
                Start(
                    weight * size**2 if j == 0 else weight,
                    jnp.concatenate([jnp.zeros(1), tones.frequency]),
                    jnp.concatenate([trend, tones.lengthscale]),
                )
            )
        return tuple(starts)

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

    # The solution.

    def parameters(self, sites: Sites, problem: Problem) -> Parameters:
        """What the solution depends on, from one draw of the sites."""
        # A factor could move from axis to axis; all but the first have variance one.
        weights = {f"weight_{axis}" for axis in problem.axes[1:]}
        scaled = {k: v / v.sum() if k in weights else v for k, v in sites.items()}
        mixtures = kernels.mixtures(scaled, problem.axes, self.envelope)
        noise_sd = problem.noise_sd
        if problem.values is not None and noise_sd is None:
            noise_sd = jnp.asarray(sites["noise_sd"])
        unknowns = {name: jnp.asarray(sites[name]) for name, _, _ in problem.unknown}
        tolerance = jnp.asarray(self._tolerance(sites))
        return Parameters(mixtures, unknowns, tolerance, noise_sd)

    def _tolerance(self, sites: Sites) -> Any:
        return sites["equation_sd"] if self.equation_sd is None else self.equation_sd

    def collocation(self, problem: Problem) -> Collocation:
        """Where the residual is to vanish: what all draws of the sites have in common."""
        start = self.parameters(self.start_sites(problem), problem)
        num_nodes = self.num_nodes or NODES
        return Collocation.of(problem, start, self.ranks(problem), num_nodes)

    def solver(
        self, sites: Sites, problem: Problem, collocation: Collocation | None = None
    ) -> Solver:
        """The problem for one draw of the sites, ready to be solved.

        Args:
            sites: one draw.
            problem: the problem.
            collocation: that of the problem, if it is known already.
        """
        if collocation is None:
            collocation = self.collocation(problem)
        return Solver.of(collocation, self.parameters(sites, problem))

    def integrated(self, sites: Sites, data: Problem) -> Solution:
        """The posterior of $u$ for one draw of the sites."""
        solver = self.solver(sites, data)
        found = solver.solve()
        has_noise = data.values is not None or self.equation_sd is None
        return solver.calibrated(found) if self.calibrated and not has_noise else found

    def ranks(self, problem: Problem) -> tuple[int | None, ...]:
        """How many functions each axis has; None for all."""
        if self.rank is not None:
            return (self.rank,) * len(problem.axes)
        if len(problem.axes) == 1:
            return (None,)
        counts = [self._num_tones(problem, j) for j in range(len(problem.axes))]
        least, most = LEAST_RANK[len(problem.axes)], MOST_RANK[len(problem.axes)]
        ranks = (min(max(least, TREND_RANK + TONE_RANK * q), most) for q in counts)
        return tuple(
            rank if chart is None else rank * chart.num_pieces
            for rank, chart in zip(ranks, problem.charts, strict=True)
        )

    def _num_tones(self, problem: Problem, j: int) -> int:
        given = dict(self.frequencies)
        axis = problem.axes[j]
        return len(given[axis]) if axis in given else problem.tones[j].frequency.size

    def canonical(self, sites, data, reference=None):
        """Frequencies without their signs, which the kernel does not have."""
        signed = {f"frequency_{axis}" for axis in data.axes}
        return {k: jnp.abs(v) if k in signed else v for k, v in sites.items()}

    def pointwise(self, sites, data):
        """Of each observation given the others; an equation has no observations."""
        if data.values is None:
            return {}
        solver = self.solver(sites, data)
        predicted = solver.predicted(solver.given(solver.fields()))
        return {"values": predicted.leave_one_out(data.values)}

    # In a labelled tree.

    def dims(self, data: Problem) -> dict[str, tuple[str, ...]]:
        named = data.dims() | kernels.dims(data.axes) | {"equation": ("row",)}
        # If the noise is given it is data, of one number or of one per observation.
        named = {"noise_sd": (), "equation_sd": ()} | named
        named |= {name: () for name, _, _ in data.unknown}
        named |= {one.name: (data.axes[one.axis],) for one in data.varying}
        named |= {f"solution{part}": data.axes for part in ("", "_mean", "_sd")}
        named |= {f"u{part}": ("point",) for part in ("", "_mean", "_sd")}
        return named

    def coords(self, data: Problem) -> dict[str, Any]:
        counts = {axis: 1 + self._num_tones(data, j) for j, axis in enumerate(data.axes)}
        return data.coords() | kernels.coords(counts)

    # Predictions.

    def inputs(self, given: Any, data: Problem) -> Inputs:
        return data.inputs(given)

    def predict(self, given: Solution, inputs: Inputs, key):
        """`u`, one draw at the points; `u_mean` and `u_sd`, its moments for one draw."""
        flat = (0,) * len(given.spans)
        z = given.sample(key)

        def at(points):
            rows = system.at_points(given.spans, points, flat)
            return rows @ z, rows @ given.mean, given.sd(rows)

        points = inputs.points
        if len(points) <= POINTS_AT_ONCE:
            found = at(points)
        else:
            each = lambda point: jax.tree.map(lambda a: a[0], at(point[None]))  # noqa: E731
            found = jax.lax.map(each, points, batch_size=POINTS_AT_ONCE)
        return dict(zip(("u", "u_mean", "u_sd"), found, strict=True))

    def recover(self, given: Solution, data: Problem, key):
        """`solution`, one draw on the grid; its exact mean and sd given the sites.

        Coefficients that vary are there too, by their names, along their axes.
        """
        flat = (0,) * len(data.axes)
        return given.varying(data) | {
            "solution": given.derivative(data.grid, flat, given.sample(key)),
            "solution_mean": given.derivative(data.grid, flat),
            "solution_sd": given.sd_on(data.grid),
        }

    def checks(self, given: Solution, data: Problem):
        found = {k: float(v) for k, v in measured(given, data).items()}
        count = 0 if data.values is None else len(data.values)
        return checks(found, float(given.parameters.equation_sd), count)


def _lengths(problem: Problem) -> list[Array]:
    return [x[-1] - x[0] for x in problem.grid]


def _normal(center: Array, spread) -> dist.Distribution:
    base = dist.Normal(jnp.zeros(center.shape), 1.0).to_event(center.ndim)
    return InUnits(base, [AffineTransform(center, spread)])
