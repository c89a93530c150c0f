r"""Softmax-gated Gaussian mixture of experts.

$$p(y \mid x) = \sum_k π_k(x) \, N(y; z^\top a_k, σ_k^2), \qquad
  π_k(x) = \frac{e^{z^\top b_k}}{\sum_j e^{z^\top b_j}}, \qquad z = (1, x).$$

Each expert is a line (with several inputs, a plane) with its own noise sd. The gate gives
the probability of each expert at an input. A mixture fits data with several regimes, such
as the phases of a crash test or the species of penguins, which one regression would
average.

Source: Jacobs, Jordan, Nowlan & Hinton (1991), "Adaptive mixtures of local experts";
the gauge and the guards follow Nguyen, Nguyen & Ho (2023), arXiv 2305.03288.
"""

from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from jaxtyping import Array, Bool, Float, PRNGKeyArray
from numpyro.distributions import constraints
from numpyro.distributions.transforms import (
    AffineTransform,
    PowerTransform,
    ZeroSumTransform,
)
from optax.assignment import hungarian_algorithm

from probkit.distributions import FromStandard, InUnits
from probkit.model import AbstractData, AbstractEMModel
from probkit.model.check import Check
from probkit.model.density import Sites
from probkit.validate import (
    as_array,
    as_key,
    column_names,
    positive,
    refuse_no_spread,
    short,
    whole,
)

__all__ = ["Pairs", "SoftmaxMoE", "Units", "simulate"]

# Without a prior an expert may interpolate d + 1 points, with infinite likelihood. Its
# variance stops at this share of the variance of y, and a check reports it.
VARIANCE_FLOOR = 1e-6
# A gate with more logits per sd of x than this switches within a hundredth of an sd. The
# data are then separated, and without a prior the likelihood has no maximum in the slope.
STEEP = 200.0
GATE_HALVINGS = 12


class Units(eqx.Module):
    """Location and scale of the data, by which priors are rescaled.

    Attributes:
        x_mean: mean of each input, `(d,)`, in units of the input.
        x_sd: sd of each input, `(d,)`, in units of the input.
        y_mean: mean of the output, in units of the output.
        y_sd: sd of the output, in units of the output.
    """

    x_mean: Float[Array, " d"]
    x_sd: Float[Array, " d"]
    y_mean: Float[Array, ""]
    y_sd: Float[Array, ""]


class Pairs(AbstractData):
    """Inputs `x` and one output `y` for each observation.

    Args:
        x: shape `(n,)` or `(n, d)`, in any units: array, list, pandas or xarray object.
        y: shape `(n,)`, in any units.
        inputs: one name per column of `x`. By default those of a data frame, else `x` or
            `x0, x1, ...`.
        units: location and scale by which priors are rescaled. By default the mean and
            the sd of these data. Give it to keep the priors fixed while data change.

    Raises:
        ValueError: for shapes that do not match, text, NaN, fewer than two
            observations, or a constant column.
    """

    x: Float[Array, "n d"]
    y: Float[Array, " m"]
    units: Units
    inputs: tuple[str, ...] = eqx.field(static=True)

    def __init__(self, x, y, inputs=None, units: Units | None = None):
        given, x, y = x, as_array(x, "Pairs(x=...)"), as_array(y, "Pairs(y=...)")
        if x.ndim not in (1, 2) or y.ndim != 1:
            raise ValueError(
                f"`Pairs` got `x` of shape {x.shape} and `y` of shape {y.shape}; it takes "
                "`x` of shape (n,) or (n, d) and `y` of shape (n,)."
            )
        if x.ndim == 1:
            x = x[:, None]
        if x.shape[0] != y.shape[0]:
            raise ValueError(
                f"`Pairs` got {x.shape[0]} rows of `x` but {y.shape[0]} values of `y`; "
                "each observation has one of both."
                + (" Transpose `x`." if x.shape[1] == y.shape[0] else "")
            )
        if y.shape[0] < 2:
            raise ValueError(
                f"`Pairs(x=..., y=...)` needs two observations or more to have a spread, "
                f"but got {y.shape[0]}."
            )
        if x.shape[1] == 0:
            raise ValueError("`Pairs(x=...)` has no columns; it takes one or more.")
        self.inputs = _input_names(inputs, column_names(given, x.shape[1]), x.shape[1])
        self.x, self.y = x, y.astype(x.dtype)
        self.units = self._own_units() if units is None else self._given_units(units)

    def _own_units(self) -> Units:
        for name, column in zip(self.inputs, self.x.T, strict=True):
            refuse_no_spread(
                column,
                f"`Pairs(x=...)`: column `{name}`",
                "cannot be distinguished from the intercept; drop it",
            )
        refuse_no_spread(self.y, "`Pairs(y=...)`", "leaves nothing to explain")
        x, y = np.asarray(self.x), np.asarray(self.y)
        units = x.mean(0), x.std(0), y.mean(), y.std()
        return Units(*(jnp.asarray(u, self.x.dtype) for u in units))

    def _given_units(self, units) -> Units:
        columns = self.x.shape[1]
        if not isinstance(units, Units) or np.shape(units.x_sd) != (columns,):
            raise ValueError(
                "`Pairs(units=...)` takes the units of data with as many columns, here "
                f"{columns}, such as `units=other.units`."
            )
        return jax.tree.map(lambda a: jnp.asarray(a, self.x.dtype), units)

    @classmethod
    def restore(cls, arrays, fields) -> "Pairs":
        units = Units(**{k: jnp.asarray(v) for k, v in fields["units"]["fields"].items()})
        return cls(arrays["x"], arrays["y"], inputs=fields["inputs"], units=units)


def _default_names(count: int) -> tuple[str, ...]:
    return ("x",) if count == 1 else tuple(f"x{i}" for i in range(count))


def _input_names(given, found, count: int) -> tuple[str, ...]:
    if given is None:
        names, what = found or _default_names(count), "Pairs(x=...)"
    else:
        what = "Pairs(inputs=...)"
        try:
            names = (given,) if isinstance(given, str) else tuple(str(n) for n in given)
        except TypeError:
            names = ()
        if len(names) != count:
            raise ValueError(
                f"`Pairs(inputs={short(given)})` has {len(names)} of {count} names; give a "
                "name for each column of `x`."
            )
    terms = ("intercept", *names)
    twice = [name for i, name in enumerate(terms) if name in terms[:i]]
    if twice:
        raise ValueError(
            f"`{what}` has two terms called `{twice[0]}`; give each column a name of its "
            "own (`intercept` is taken), `Pairs(..., inputs=[...])`."
        )
    return names


def _refuse_other_names(found, expected) -> None:
    """Refuse columns with other names, or in another order, than those of the fit."""
    if found is None or found == expected or expected == _default_names(len(expected)):
        return
    raise ValueError(
        f"`predict(..., inputs)` has the columns {', '.join(found)}, but the fit has "
        f"{', '.join(expected)}; give these, in this order."
    )


class Inputs(eqx.Module):
    """Where to predict.

    Attributes:
        x: inputs, in units of the data.
        y: outputs at which the predictive density is wanted, or None.
    """

    x: Float[Array, "n d"]
    y: Float[Array, " n"] | None = None


def design(x: Float[Array, "n d"]) -> Float[Array, "n t"]:
    """The design matrix, with one row $z = (1, x)$ per row of `x`."""
    return jnp.concatenate([jnp.ones_like(x[:, :1]), x], axis=1)


def _positive(name: str, default: float) -> Any:
    return eqx.field(default=default, converter=positive(f"SoftmaxMoE({name}"))


def weighted_grams(
    z: Float[Array, "n t"], weights: Float[Array, "n m"]
) -> Float[Array, "m t t"]:
    """$Z^\\top \\mathrm{diag}(w_j) Z$ for each column of weights, as one matrix product.

    Args:
        z: $Z$, one row per observation.
        weights: $w$, one column per result.

    Returns:
        One matrix per column of weights.
    """
    (n, t), m = z.shape, weights.shape[1]
    weighted = (weights[:, :, None] * z[:, None, :]).reshape(n, m * t)
    return (z.T @ weighted).reshape(t, m, t).swapaxes(0, 1)


def zero_sum_basis(count: int, dtype) -> Float[Array, "k f"]:
    """Orthonormal columns that span all vectors of `count` entries with sum zero."""
    return ZeroSumTransform(1)(jnp.eye(count - 1, dtype=dtype)).T


def _solve_positive(matrix: Float[Array, "*b t t"], right: Float[Array, "*b t"]):
    factor = jnp.linalg.cholesky(matrix)
    half = jax.scipy.linalg.solve_triangular(factor, right[..., None], lower=True)
    whole = jax.scipy.linalg.solve_triangular(factor, half, lower=True, trans="T")
    return whole[..., 0]


class SoftmaxMoE(AbstractEMModel):
    r"""Linear Gaussian experts under a softmax gate that is linear in the inputs.

    Sites: `gate` $b$ `(term, expert)`, whose rows sum to zero; `coefficient` $a$
    `(term, expert)`, in units of the output per unit of the input; `noise_sd` $σ$
    `(expert,)`, in units of the output. The first term is the intercept.

    Priors are set for standardised data: $b, a \sim N$ with sds `gate_scale` and
    `coefficient_scale`, and $σ^2$ inverse gamma. If you rescale the data, the fit is
    therefore the same up to that rescaling.

    Attributes:
        num_experts: $K \ge 1$.
        gate_scale: prior sd of the gate, in logits per sd of the input.
        coefficient_scale: prior sd of the coefficients, in sds of y per sd of the input.
        noise_shape, noise_rate: of the inverse-gamma prior of $σ^2 / \mathrm{var}(y)$.
            It keeps variances away from zero, where an expert fits a few points exactly.

    Source: the model is eq. (1) of arXiv 2305.03288. Departs: the gate's gauge is
    sum-to-zero rather than a reference expert, so that a prior treats experts alike.
    """

    interchangeable: ClassVar[str | None] = "expert"

    num_experts: int = eqx.field(converter=whole("SoftmaxMoE(num_experts", 1))
    gate_scale: float = _positive("gate_scale", 2.5)
    coefficient_scale: float = _positive("coefficient_scale", 2.5)
    noise_shape: float = _positive("noise_shape", 2.0)
    noise_rate: float = _positive("noise_rate", 0.05)

    # The program.

    def __call__(self, data: Pairs) -> None:
        self._refuse_misfit(data)
        priors = self.priors(data)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        with numpyro.plate("observation", len(data)):
            numpyro.sample("y", self.conditional(sites, data.x), obs=data.y)

    def priors(self, data: Pairs) -> dict[str, dist.Distribution]:
        """The prior of each site, in the units of the data.

        Args:
            data: the data, of which only units and shapes are used.

        Returns:
            `{site: distribution}`.
        """
        u, K = data.units, self.num_experts
        terms = u.x_mean.shape[0] + 1
        one = jnp.ones((), data.y.dtype)
        gate = dist.Normal(0 * one, self.gate_scale).expand([terms, K - 1]).to_event(2)
        coefficient = (
            dist.Normal(0 * one, self.coefficient_scale).expand([terms, K]).to_event(2)
        )
        variance = dist.InverseGamma(self.noise_shape * one, self.noise_rate).expand([K])
        return {
            "gate": InUnits(gate, [FromStandard(u.x_mean, u.x_sd), ZeroSumTransform(1)]),
            "coefficient": InUnits(
                coefficient, [FromStandard(u.x_mean, u.x_sd, u.y_mean, u.y_sd)]
            ),
            "noise_sd": InUnits(
                variance,
                [
                    PowerTransform(0.5),
                    AffineTransform(0.0, u.y_sd, constraints.positive),
                ],
            ).to_event(1),
        }

    def conditional(self, sites: Sites, x: Float[Array, "n d"]) -> dist.MixtureSameFamily:
        """$p(y | x)$ at each row of `x`, given one draw of the sites.

        Args:
            sites: one draw.
            x: inputs, in units of the data.

        Returns:
            A distribution of `n` outputs.
        """
        z, K = design(x), self.num_experts
        experts = dist.Normal(z @ sites["coefficient"], sites["noise_sd"])
        gate = dist.Categorical(logits=z @ sites["gate"])
        assert gate.logits.shape[-1] == K
        return dist.MixtureSameFamily(gate, experts)

    def _refuse_misfit(self, data: Any) -> None:
        if not isinstance(data, Pairs):
            raise ValueError(
                f"`SoftmaxMoE` takes `moe.Pairs`, not `{type(data).__name__}`."
            )
        if len(data) < self.num_experts:
            raise ValueError(
                f"`SoftmaxMoE(num_experts={self.num_experts})` got {len(data)} "
                "observations, in all or in a batch; it takes at least one per expert, and "
                "needs many more to be useful."
            )

    # EM.

    def start(self, data: Pairs, key: PRNGKeyArray) -> Sites:
        """Sites fitted to random slabs: a random projection of (x, y), cut at random."""
        self._refuse_misfit(data)
        K, (x, y) = self.num_experts, self._standard_data(data)
        key_direction, key_cuts = jax.random.split(key)
        v = jnp.concatenate([x, y[:, None]], axis=1)
        direction = jax.random.normal(key_direction, v.shape[1:], v.dtype)
        score = v @ direction
        # Cuts at the quantiles of a normal distribution with unequal shares, seldom tiny.
        # Exact quantiles would take a sort, which is slow to compile.
        share = jax.nn.softmax(0.5 * jax.random.normal(key_cuts, (K,), v.dtype))
        cuts = jax.scipy.special.ndtri(jnp.cumsum(share)[:-1])
        slab = (score[:, None] > score.mean() + score.std() * cuts).sum(1)
        r = 0.9 * jax.nn.one_hot(slab, K, dtype=v.dtype) + 0.1 / K
        terms = x.shape[1] + 1
        flat = {
            "gate": jnp.zeros((terms, K), v.dtype),
            "coefficient": jnp.zeros((terms, K), v.dtype),
            "noise_sd": jnp.ones(K, v.dtype),
        }
        even = jnp.full_like(r, 1 / K)
        return self.m_step((r, even), self._in_units(flat, data), data, use_prior=True)

    def e_step(self, sites, data):
        """Responsibilities $p(k | x_i, y_i)$ and gate shares $π_k(x_i)$ of the experts."""
        mixture = self.conditional(sites, data.x)
        log_joint = mixture.component_log_probs(data.y)
        log_density = jax.nn.logsumexp(log_joint, axis=-1, keepdims=True)
        share = mixture.mixing_distribution.probs
        return (jnp.exp(log_joint - log_density), share), log_density.sum()

    def m_step(self, moments, sites, data, use_prior):
        """Experts in closed form; one damped Newton step of the gate.

        EM needs only a step that does not lower the gate's objective (generalised EM).
        A full solve for the gate costs more per step and does not save steps.
        """
        (r, share), (x, y) = moments, self._standard_data(data)
        z, old = design(x), self._in_standard(sites, data)
        grams = weighted_grams(z, jnp.concatenate([r, share], axis=1))
        of_experts, of_gate = jnp.split(grams, 2)
        gate = self._better_gate(old["gate"], z, r, share, of_gate, use_prior)
        coefficient, noise_sd = self._best_experts(
            old["noise_sd"], z, y, r, of_experts, use_prior
        )
        new = {"gate": gate, "coefficient": coefficient, "noise_sd": noise_sd}
        return self._in_units(new, data)

    def _best_experts(self, noise_sd, z, y, r, grams, use_prior: bool):
        # Weighted least squares, one column per expert. The prior of the coefficients is a
        # ridge of σ²/scale², which uses the variance of the last step.
        count = r.sum(0)
        if use_prior:
            ridge = noise_sd**2 / self.coefficient_scale**2
        else:
            # Without a prior: enough to keep an expert without observations finite.
            ridge = 1e2 * jnp.finfo(z.dtype).eps * (1 + count)
        normal = grams + ridge[:, None, None] * jnp.eye(z.shape[1], dtype=z.dtype)
        moment = (r * y[:, None]).T @ z
        coefficient = _solve_positive(normal, moment).T
        squares = (r * (y[:, None] - z @ coefficient) ** 2).sum(0)
        if use_prior:
            # The maximum over σ, not σ²: log p(σ) = -(2a + 1) log σ - b/σ² + const.
            a, b = self.noise_shape, self.noise_rate
            variance = (squares + 2 * b) / (count + 2 * a + 1)
        else:
            tiny = jnp.finfo(z.dtype).tiny
            variance = jnp.maximum(squares / jnp.maximum(count, tiny), VARIANCE_FLOOR)
        return coefficient, jnp.sqrt(variance)

    def _better_gate(self, gate, z, r, share, grams, use_prior: bool):
        r"""One Newton step on $Q(b) = \sum_i \sum_k r_{ik} \log π_k(x_i)$, damped.

        $Q$ is concave, with gradient $Z^\top (R - Π)$ and $-H_{kl} = Z^\top
        \mathrm{diag}(π_k (δ_{kl} - π_l)) Z$, singular along common shifts of all experts.
        The step is therefore taken in $K - 1$ coordinates, with an orthonormal basis $U$
        of the vectors with sum zero.
        """
        (t, K), n = gate.shape, z.shape[0]
        if K == 1:
            return gate
        U, pull = zero_sum_basis(K, z.dtype), z.T @ r
        precision = 1 / self.gate_scale**2 if use_prior else 0.0
        gradient = (pull - z.T @ share - precision * gate) @ U
        spread = ((share @ U)[:, :, None] * z[:, None, :]).reshape(n, (K - 1) * t)
        diagonal = jnp.einsum("ka,kb,kij->aibj", U, U, grams)
        curvature = diagonal.reshape((K - 1) * t, (K - 1) * t) - spread.T @ spread
        tiny = 1e2 * jnp.finfo(z.dtype).eps * (1 + jnp.trace(curvature) / len(curvature))
        curvature = curvature + (precision + tiny) * jnp.eye(len(curvature), dtype=z.dtype)
        free = _solve_positive(curvature, gradient.T.reshape(-1)).reshape(K - 1, t).T
        step, slope = free @ U.T, (gradient * free).sum()
        logits, along = z @ gate, z @ step

        def objective(size):
            # Responsibilities sum to one, so that Q = <Z'R, b> - Σ log Σ exp.
            b = gate + size * step
            push = jax.nn.logsumexp(logits + size * along, axis=1).sum()
            return (pull * b).sum() - push - 0.5 * precision * (b**2).sum()

        before = objective(0.0)

        def too_long(carry):
            size, halvings = carry
            # Not `<`, because a NaN is too long as well.
            enough = objective(size) >= before + 1e-4 * size * slope
            return ~enough & (halvings < GATE_HALVINGS)

        size, halvings = jax.lax.while_loop(
            too_long,
            lambda carry: (carry[0] / 2, carry[1] + 1),
            (jnp.ones((), z.dtype), jnp.zeros((), jnp.int32)),
        )
        return jnp.where(halvings < GATE_HALVINGS, gate + size * step, gate)

    def degenerate(self, sites, data) -> Bool[Array, ""]:
        """Whether the variance of an expert has reached its lower limit."""
        smallest = (sites["noise_sd"] / data.units.y_sd).min() ** 2
        return smallest <= 1.001 * VARIANCE_FLOOR

    # Units.

    def _standard_data(self, data: Pairs):
        u = data.units
        return (data.x - u.x_mean) / u.x_sd, (data.y - u.y_mean) / u.y_sd

    def _in_units(self, standard: Sites, data: Pairs) -> Sites:
        u = data.units
        experts = FromStandard(u.x_mean, u.x_sd, u.y_mean, u.y_sd)
        return {
            "gate": FromStandard(u.x_mean, u.x_sd)(standard["gate"]),
            "coefficient": experts(standard["coefficient"]),
            "noise_sd": u.y_sd * standard["noise_sd"],
        }

    def _in_standard(self, sites: Sites, data: Pairs) -> Sites:
        u = data.units
        experts = FromStandard(u.x_mean, u.x_sd, u.y_mean, u.y_sd)
        return {
            "gate": FromStandard(u.x_mean, u.x_sd).inv(sites["gate"]),
            "coefficient": experts.inv(sites["coefficient"]),
            "noise_sd": sites["noise_sd"] / u.y_sd,
        }

    # Functions of a draw.

    def canonical(self, sites, data, reference=None):
        """Experts in the order that agrees best with the responsibilities of `reference`.

        The order minimises the divergence between the two tables of responsibilities
        (Stephens 2000, "Dealing with label switching"), an assignment problem. A sort by
        one coefficient would cut through the posterior wherever that coefficient does not
        distinguish the experts. Without a reference, experts are sorted by the mean of
        the first input, weighted by their responsibilities.
        """
        # A thousand observations are enough to distinguish the experts.
        thin = data.take(jnp.arange(0, len(data), max(1, len(data) // 1000)))
        log_r = self._log_responsibility(sites, thin.x, thin.y)
        if reference is None:
            r = jnp.exp(log_r)
            order = jnp.argsort(r.T @ thin.x[:, 0] / r.sum(0))
        else:
            target = jnp.exp(self._log_responsibility(reference, thin.x, thin.y))
            theirs, ours = hungarian_algorithm(-target.T @ jnp.maximum(log_r, -700.0))
            order = jnp.zeros_like(ours).at[theirs].set(ours)
        return {
            name: jnp.take(sites[name], order, axis=-1)
            for name in ("gate", "coefficient", "noise_sd")
        }

    def _log_responsibility(self, sites, x, y) -> Float[Array, "n k"]:
        log_joint = self.conditional(sites, x).component_log_probs(y)
        return jax.nn.log_softmax(log_joint, axis=-1)

    def recover(self, sites, data, key):
        """`label`: a draw of the expert of each observation, `(n,)`."""
        logits = self._log_responsibility(sites, data.x, data.y)
        return {"label": jax.random.categorical(key, logits, axis=-1)}

    def inputs(self, given: Any, data: Pairs) -> Inputs:
        d, dtype = data.x.shape[1], data.x.dtype
        if isinstance(given, Pairs):
            x, y = given.x, given.y.astype(dtype)
        else:
            x, y = as_array(given, "predict(..., inputs)"), None
        if x.ndim == 1 and d == 1:
            x = x[:, None]
        if x.ndim != 2 or x.shape[1] != d:
            raise ValueError(
                f"`predict(..., inputs)` has shape {x.shape}; the fit has the inputs "
                f"{', '.join(data.inputs)}, so it takes shape (m, {d})."
            )
        if len(x) == 0:
            raise ValueError("`predict(..., inputs)` has no rows; give one or more.")
        if isinstance(given, Pairs):
            own = given.inputs != _default_names(d)
            _refuse_other_names(given.inputs if own else None, data.inputs)
        elif np.ndim(given) == 2:
            _refuse_other_names(column_names(given, d), data.inputs)
        return Inputs(x.astype(dtype), y)

    def predict(self, sites, inputs, key):
        """At each input a draw of `y`, `mean` E[y|x] and `membership` p(expert|x).

        `y` and `mean` are in units of the output. For `Pairs` instead of inputs,
        `membership` is p(expert|x, y), and `log_density`, log p(y|x), is added.
        """
        mixture = self.conditional(sites, inputs.x)
        gate = mixture.mixing_distribution.probs
        out = {"y": mixture.sample(key), "mean": mixture.mean, "membership": gate}
        if inputs.y is not None:
            out["membership"] = jnp.exp(self._log_responsibility(sites, inputs.x, inputs.y))
            out["log_density"] = mixture.log_prob(inputs.y)
        return out

    def dims(self, data):
        return {
            "gate": ("term", "expert"),
            "coefficient": ("term", "expert"),
            "noise_sd": ("expert",),
            "x": ("observation", "input"),
            "y": ("observation",),
            "label": ("observation",),
            "mean": ("observation",),
            "membership": ("observation", "expert"),
            "log_density": ("observation",),
        }

    def coords(self, data):
        return {
            "term": ("intercept", *data.inputs),
            "expert": np.arange(self.num_experts),
            "input": data.inputs,
            "observation": np.arange(len(data)),
        }

    def checks(self, sites, data):
        standard = self._in_standard(sites, data)
        slope = standard["gate"][1:]
        contrast = (slope.max(1) - slope.min(1)).max()
        r = jnp.exp(self._log_responsibility(sites, data.x, data.y))
        return (
            Check(
                "steepest gate",
                float(contrast),
                "at most",
                STEEP,
                "the inputs separate the experts, so that the likelihood has no maximum in "
                'the slope: keep the prior (`maximise="posterior"`)',
                "logits per sd of the input",
            ),
            Check(
                "observations of the smallest expert",
                float(r.sum(0).min()),
                "at least",
                data.x.shape[1] + 2,
                "an expert has too few observations: use fewer experts",
                "sum of its responsibilities",
            ),
        )


def simulate(
    key: PRNGKeyArray,
    x: Any,
    gate: Any,
    coefficient: Any,
    noise_sd: Any,
) -> Pairs:
    """Data from known experts.

    Args:
        key: a JAX random key.
        x: inputs, shape `(n,)` or `(n, d)`, with two observations or more.
        gate: shape `(d + 1, K)`, the intercepts first, in logits per unit of the input.
            Its rows need not sum to zero.
        coefficient: shape `(d + 1, K)`, the intercepts first, in units of the output per
            unit of the input.
        noise_sd: shape `(K,)`, positive, in units of the output.

    Returns:
        `Pairs` with the inputs and simulated outputs.

    Raises:
        ValueError: if the shapes do not match.
    """
    key, names = as_key(key, "simulate(key=...)"), x
    x = as_array(x, "simulate(x=...)")
    if x.ndim not in (1, 2) or len(x) < 2:
        raise ValueError(
            f"`simulate(x=...)` has shape {x.shape}; it takes (n,) or (n, d), with two "
            "observations or more."
        )
    x = x[:, None] if x.ndim == 1 else x
    given = {"gate": gate, "coefficient": coefficient, "noise_sd": noise_sd}
    sites = {k: as_array(v, f"simulate({k}=...)") for k, v in given.items()}
    sites = {k: v.astype(x.dtype) for k, v in sites.items()}
    σ = sites["noise_sd"]
    if σ.ndim != 1 or σ.size == 0 or not bool((σ > 0).all()):
        raise ValueError(
            f"`simulate(noise_sd={short(noise_sd)})`: it takes a positive number for each "
            "expert, shape (K,)."
        )
    shape = (x.shape[1] + 1, len(σ))
    for name in ("gate", "coefficient"):
        if sites[name].shape != shape:
            raise ValueError(
                f"`simulate({name}=...)` has shape {sites[name].shape}; with {len(σ)} "
                f"experts and {x.shape[1]} inputs it takes {shape}."
            )
    mixture = SoftmaxMoE(num_experts=len(σ)).conditional(sites, x)
    return Pairs(x, mixture.sample(key), inputs=column_names(names, x.shape[1]))
