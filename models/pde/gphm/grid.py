r"""The model of the paper as it is: one joint density of values, kernels and precisions.

`pde.Adam` increases it in all of them together. It is kept for comparison. `SpectralGP`
integrates the values out instead, and has a posterior sd.

Source: Fang et al. (2024), "Solving high frequency and multi-scale PDEs with Gaussian
processes", arXiv 2311.04465, and the authors' code.
"""

import math
from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import lineax as lx
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Float
from numpyro.distributions import Distribution, constraints

from probkit import linalg
from probkit.gp import SpectralMixture, gram
from probkit.gp.mixture import Envelope, as_envelope
from probkit.linalg import mode_products, with_jitter
from probkit.linalg.kronecker import Inverse
from probkit.model import AbstractModel
from probkit.model.density import Sites
from probkit.models.pde import kernels
from probkit.models.pde.conditions import Condition
from probkit.models.pde.equation import Orders
from probkit.models.pde.problem import Inputs, Problem
from probkit.validate import positive, whole

# The paper's parameters, which are real and without limits. Adam moves these.
Position = dict[str, Array]
# $K_j$ of each axis, tagged positive definite.
Factors = tuple[lx.MatrixLinearOperator, ...]
# Priors are flat up to here, in the logarithm and in multiples of the maximal frequency.
FAR, FAR_FREQUENCY = 50.0, 10.0


def _solved(tensor: Array, factors: Sequence[lx.MatrixLinearOperator | None]) -> Array:
    """$K_p^{-1}$ along each axis of a tensor; an axis with None is left as it is."""
    return mode_products(tensor, [None if K is None else Inverse(K) for K in factors])


class GridNormal(Distribution):
    r"""A tensor $U$ with $\mathrm{vec}\, U \sim N(0, K_1 ⊗ … ⊗ K_d)$.

    Args:
        factors: $K_p$, one lineax operator per axis, `(n_p, n_p)`, positive definite.
    """

    arg_constraints: ClassVar[dict] = {}
    pytree_data_fields = ("factors",)

    def __init__(self, factors, *, validate_args: bool | None = None):
        self.factors = tuple(factors)
        event_shape = tuple(K.in_size() for K in self.factors)
        super().__init__((), event_shape, validate_args=validate_args)

    @constraints.dependent_property(is_discrete=False)
    def support(self):
        return constraints.independent(constraints.real, len(self.event_shape))

    def log_prob(self, value, intermediates=None):
        # <U, (K_1 ⊗ K_2)⁻¹ U> = <K_1⁻¹ U, U K_2⁻¹>, both of which derivatives need as well
        first, *others = self.factors
        left = _solved(value, [first, *[None] * len(others)])
        right = _solved(value, [None, *others])
        size = math.prod(self.event_shape)
        logdet = linalg.logdet(linalg.Kronecker(self.factors))
        return -0.5 * (size * math.log(2 * math.pi) + logdet + jnp.vdot(left, right))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()):
        draws = linalg.sample(linalg.Kronecker(self.factors), key, sample_shape)
        return draws.reshape(*sample_shape, *self.event_shape)


class Terms(NamedTuple):
    """The observed parts of the joint density: conditions on faces, and the equation."""

    boundary: dist.Normal
    known: Float[Array, " b"]
    equation: dist.Normal


class GridGP(AbstractModel):
    r"""The paper's joint density of a solution on a grid, its kernels and precisions.

    $$U \sim N\Bigl(0, ⊗_j (K_j + ε I)\Bigr), \qquad
    g \sim N(u_b, τ_1^{-1} I)^{λ_b}, \qquad
    0 \sim N(P(U), τ_2^{-1} I)$$

    Derivatives of $u$ are those of the conditional mean given $U$: along axis $j$
    $K_j'' (K_j + ε I)^{-1}$. $u_b$ are the grid values on the faces with a condition, face
    by face, so that a corner counts once per face. $λ_b$ is a power of the density.

    Sites, for each axis: `weight_<axis>`, `frequency_<axis>`, `lengthscale_<axis>`, as
    `probkit.gp.SpectralMixture` has them; `boundary_precision` $τ_1$,
    `equation_precision` $τ_2$; `solution` $U$. Positive sites have the density $1/x$,
    which is flat in the logarithm; that of frequencies is flat. The limits, $e^{±50}$ and
    $±10 F$, make the prior proper. Fit it by `pde.Adam`, which does not use these limits.
    Without them the density has no maximum, because it grows as precisions do.

    Attributes:
        envelope: "student_t" or "gaussian".
        num_components: $Q$, the number of components of each axis.
        max_frequency: $F$, in cycles per unit of the axis; frequencies start evenly spaced
            from 0 to $F$.
        boundary_weight: $λ_b$, without units.
        jitter: $ε$, in squared units of $u$.

    Raises:
        ValueError: for a setting out of range; in `pk.fit`, for a problem with
            observations or unknown coefficients, or without conditions.

    Departs: not in the density. Kernel matrices are made from their lags and solved by
    Cholesky, where the authors' code evaluates all pairs and solves by LU. A matrix that
    is singular to rounding therefore ends the run here.
    """

    envelope: Envelope = eqx.field(default="student_t", converter=as_envelope("GridGP"))
    num_components: int = eqx.field(default=30, converter=whole("GridGP(num_components", 1))
    max_frequency: float = eqx.field(
        default=20.0, converter=positive("GridGP(max_frequency")
    )
    boundary_weight: float = eqx.field(
        default=200.0, converter=positive("GridGP(boundary_weight")
    )
    jitter: float = eqx.field(default=1e-6, converter=positive("GridGP(jitter"))

    def __call__(self, data: Problem) -> None:
        refuse_other_problems(data)
        sites: Sites = {}
        shape = (self.num_components,)
        for axis in data.axes:
            F = FAR_FREQUENCY * self.max_frequency
            priors = {
                f"weight_{axis}": _flat_in_log().expand(shape),
                f"frequency_{axis}": dist.Uniform(-F, F).expand(shape),
                f"lengthscale_{axis}": _flat_in_log().expand(shape),
            }
            for name, prior in priors.items():
                sites[name] = numpyro.sample(name, prior.to_event(1))
        for name in ("boundary_precision", "equation_precision"):
            sites[name] = numpyro.sample(name, _flat_in_log())
        factors = self.factors(sites, data)
        sites["solution"] = numpyro.sample("solution", GridNormal(factors))
        terms = self.terms(sites, data, factors)
        with numpyro.handlers.scale(scale=self.boundary_weight):
            numpyro.sample("boundary", terms.boundary, obs=terms.known)
        numpyro.sample("equation", terms.equation, obs=jnp.zeros(data.shape))

    # The density, and its parts.

    def mixtures(self, sites: Sites, problem: Problem) -> tuple[SpectralMixture, ...]:
        """The kernel of each axis."""
        return kernels.mixtures(sites, problem.axes, self.envelope)

    def factors(self, sites: Sites, problem: Problem) -> Factors:
        """$K_j + ε I$ of each axis."""
        pairs = zip(self.mixtures(sites, problem), problem.grid, strict=True)
        return tuple(
            lx.MatrixLinearOperator(
                with_jitter(gram(k, x), amount=self.jitter), lx.positive_semidefinite_tag
            )
            for k, x in pairs
        )

    def derivatives(
        self, sites: Sites, problem: Problem, factors: Factors
    ) -> dict[Orders, Float[Array, "..."]]:
        """The derivatives of u on the grid that the equation and the conditions ask for."""
        U, mixtures = sites["solution"], self.mixtures(sites, problem)

        def of(orders):
            inner = [K if n else None for K, n in zip(factors, orders, strict=True)]
            pairs = zip(mixtures, problem.grid, orders, strict=True)
            outer = [gram(k, x, n) if n else None for k, x, n in pairs]
            return mode_products(_solved(U, inner), outer)

        wanted = {
            *problem.equation.orders,
            *(_orders(c, problem) for c in problem.conditions),
        }
        return {orders: of(orders) for orders in sorted(wanted)}

    def terms(self, sites: Sites, problem: Problem, factors: Factors) -> Terms:
        """The boundary and the equation as observations."""
        u = self.derivatives(sites, problem, factors)
        faces, known = [], []
        for condition in problem.conditions:
            values = jnp.moveaxis(u[_orders(condition, problem)], condition.axis, 0)
            sides = {"low": values[0], "high": values[-1]}
            sides["periodic"] = values[-1] - values[0]
            faces.append(sides[condition.side].reshape(-1))
            known.append(condition.values.reshape(-1))
        residual = jnp.broadcast_to(problem.equation(u), problem.shape)
        sd_boundary = sites["boundary_precision"] ** -0.5
        sd_equation = sites["equation_precision"] ** -0.5
        # Where there is no Cholesky factor the density is NaN, which is not a mistake.
        return Terms(
            dist.Normal(jnp.concatenate(faces), sd_boundary, validate_args=False),
            jnp.concatenate(known),
            dist.Normal(residual, sd_equation, validate_args=False),
        )

    def objective(self, position: Position, problem: Problem) -> Float[Array, ""]:
        r"""What the paper minimises, $-L$, without the constants of the densities.

        $$-L = \tfrac12 \sum_j \tfrac{M}{N_j} \log|K_j| + \tfrac12 \langle U, (⊗K_j)^{-1} U
        \rangle - λ_b \left[\tfrac{N_b}{2} \log τ_1 - \tfrac{τ_1}{2} |u_b - g|²\right]
        - \tfrac{M}{2} \log τ_2 + \tfrac{τ_2}{2} |P(U)|²$$

        Args:
            position: the paper's parameters, see `position`.
            problem: the problem.

        Returns:
            One number, in nats.
        """
        return self.objective_and_misfit(position, problem)[0]

    def objective_and_misfit(self, position: Position, problem: Problem):
        """The objective, and the misfit by which the paper stops: mean squares, added."""
        sites = self.sites(position, problem)
        factors = self.factors(sites, problem)
        prior = GridNormal(factors).log_prob(sites["solution"])
        boundary, known, equation = self.terms(sites, problem, factors)
        on_faces, inside = boundary.log_prob(known), equation.log_prob(0.0)
        count = inside.size + self.boundary_weight * on_faces.size + inside.size
        constant = 0.5 * math.log(2 * math.pi) * count
        joint = prior + self.boundary_weight * on_faces.sum() + inside.sum()
        misfit = jnp.mean((boundary.loc - known) ** 2) + jnp.mean(equation.loc**2)
        return -(joint + constant), misfit

    # The paper's parameters.

    def start_sites(self, problem: Problem) -> Sites:
        """The paper's start: $w = 1/Q$, even frequencies, `log ls` 0, $τ = 1$, $U = 0$."""
        Q = self.num_components
        position = {"solution": jnp.zeros(problem.shape)}
        for axis in problem.axes:
            position[f"log_w_{axis}"] = jnp.full(Q, -math.log(Q))
            position[f"frequency_{axis}"] = jnp.linspace(0, self.max_frequency, Q)
            position[f"log_ls_{axis}"] = jnp.zeros(Q)
        position |= {"log_tau_1": jnp.zeros(()), "log_tau_2": jnp.zeros(())}
        return self.sites(position, problem)

    def position(self, sites: Sites, problem: Problem) -> Position:
        r"""The paper's parameters: $\log w$, $μ$, `log ls`, $\log τ$ and $U$.

        Its `ls` is $1/ℓ$ for Student-t bumps and $1/(2ℓ²)$ for Gaussian ones.
        """
        position = {
            "solution": sites["solution"],
            "log_tau_1": jnp.log(sites["boundary_precision"]),
            "log_tau_2": jnp.log(sites["equation_precision"]),
        }
        for axis in problem.axes:
            log_l = jnp.log(sites[f"lengthscale_{axis}"])
            log_ls = -log_l if self.envelope == "student_t" else -2 * log_l - math.log(2)
            position[f"log_w_{axis}"] = jnp.log(sites[f"weight_{axis}"])
            position[f"frequency_{axis}"] = sites[f"frequency_{axis}"]
            position[f"log_ls_{axis}"] = log_ls
        return position

    def sites(self, position: Position, problem: Problem) -> Sites:
        """The way back from `position`."""
        sites = {
            "boundary_precision": jnp.exp(position["log_tau_1"]),
            "equation_precision": jnp.exp(position["log_tau_2"]),
            "solution": position["solution"],
        }
        for axis in problem.axes:
            log_ls = position[f"log_ls_{axis}"]
            student = self.envelope == "student_t"
            log_l = -log_ls if student else -0.5 * (log_ls + math.log(2))
            sites[f"weight_{axis}"] = jnp.exp(position[f"log_w_{axis}"])
            sites[f"frequency_{axis}"] = position[f"frequency_{axis}"]
            sites[f"lengthscale_{axis}"] = jnp.exp(log_l)
        return sites

    # Names, labels and predictions.

    def dims(self, data: Problem) -> dict[str, tuple[str, ...]]:
        named = data.dims() | kernels.dims(data.axes)
        named |= {"boundary_precision": (), "equation_precision": ()}
        named |= {"solution": data.axes, "u": ("point",)}
        return named | {"boundary": ("face_point",), "equation": data.axes}

    def coords(self, data: Problem) -> dict[str, Any]:
        labels = kernels.coords(dict.fromkeys(data.axes, self.num_components))
        faces = sum(condition.values.size for condition in data.conditions)
        return data.coords() | labels | {"face_point": np.arange(faces)}

    def inputs(self, given: Any, data: Problem) -> Inputs:
        return data.inputs(given)

    def predict(self, sites, inputs, key):
        """`u` at points: the conditional mean given the values on the grid."""
        points, problem = inputs.points, inputs.problem
        weights = _solved(sites["solution"], self.factors(sites, problem))
        mixtures = self.mixtures(sites, problem)

        def at(point):
            value = weights
            for k, x, here in zip(mixtures, problem.grid, point, strict=True):
                value = jnp.tensordot(k(here - x), value, 1)
            return value

        return {"u": jax.lax.map(at, points, batch_size=256)}


def _flat_in_log():
    return dist.LogUniform(math.exp(-FAR), math.exp(FAR))


def _orders(condition: Condition, problem: Problem) -> Orders:
    axes = range(len(problem.axes))
    return tuple(condition.order if j == condition.axis else 0 for j in axes)


def refuse_other_problems(problem: Problem) -> None:
    """Refuse problems that the paper does not have.

    Raises:
        ValueError: if there are observations or unknown coefficients, no conditions, a
            `Robin` condition, breaks or layers.
    """
    more = any(condition.more is not None for condition in problem.conditions)
    more = more or any(problem.charts)
    if problem.values is not None or problem.unknown or not problem.conditions or more:
        raise ValueError(
            "`pde.GridGP` is the paper's model, for an equation with conditions on faces: "
            "without observations, unknown coefficients, breaks, layers, `pde.Robin` or an "
            "empty boundary. Use `pde.SpectralGP`."
        )
