r"""The dense-to-sparse gate with an activation.

$$π_k(x) = \mathrm{softmax}_k \, \frac{s(z^\top b_k) + c_k}{τ}, \qquad z = (1, x).$$

A linear score may grow without limit, so that far out one expert has all of the share. An
activation $s$ such as tanh bounds it. The temperature $τ$ says how sparse the gate is: near
zero one expert is in force at an input, for large $τ$ all are.

With a linear score no data determine $τ$, since $c τ$ with $c b$ gives the same shares; nor
with any $s$ for which $s(c u) = c^p s(u)$. With others they do, at the usual rate.

Source: Nguyen, Akbarian & Ho (2024), "Is temperature sample efficient for softmax Gaussian
mixture of experts?", arXiv 2401.13875. Departs: an intercept inside of the activation, so
that the shares do not depend on where an input has its zero.
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float
from numpyro.distributions import LogNormal, StudentT
from numpyro.distributions.transforms import IdentityTransform, ZeroSumTransform

from probkit.distributions import InUnits, IsotropicT
from probkit.model.density import Sites
from probkit.models.moe.gates.base import AbstractGate
from probkit.models.moe.gates.newton import damped
from probkit.models.moe.least_squares import solve_positive
from probkit.models.moe.terms import Recentred, design
from probkit.validate import optional, positive

FUNCTIONS: dict[str, Callable[[Array], Array]] = {
    "tanh": jnp.tanh,
    "sigmoid": jax.nn.sigmoid,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
    "softplus": jax.nn.softplus,
    "relu": jax.nn.relu,
    "identity": lambda u: u,
}


class Activation(AbstractGate):
    r"""A softmax gate whose scores go through an activation.

    Sites: `gate` $b$ `(term, expert)`, the intercept first, per unit of the input;
    `gate_bias` $c$ `(expert,)`, with sum zero; and `temperature` $τ$, unless it is given.

    Attributes:
        function: $s$: `"tanh"`, `"sigmoid"`, `"gelu"`, `"silu"`, `"softplus"`, `"relu"`,
            `"identity"`, or a function of your own, of an array.
        temperature: $τ$, or None to learn it.
        scale: prior scale of the scores, at the center and per scale of the input.
        bias_scale: prior scale of $c$.
        df: degrees of freedom of both priors.
        temperature_scale: prior sd of $\log τ$.
    """

    function: Any = "tanh"
    temperature: float | None = eqx.field(
        default=1.0, converter=optional(positive("Activation(temperature"))
    )
    scale: float = eqx.field(default=2.5, converter=positive("Activation(scale"))
    bias_scale: float = eqx.field(default=1.5, converter=positive("Activation(bias_scale"))
    df: float = eqx.field(default=3.0, converter=positive("Activation(df"))
    temperature_scale: float = eqx.field(
        default=0.5, converter=positive("Activation(temperature_scale")
    )

    def __check_init__(self):
        if not callable(self.function) and self.function not in FUNCTIONS:
            raise ValueError(
                f"`Activation(function={self.function!r})` is not known; it takes "
                f"{', '.join(FUNCTIONS)}, or a function of an array."
            )
        if self.temperature is None and _is_homogeneous(self._function):
            raise ValueError(
                f"`Activation(function={self.function!r}, temperature=None)`: the data do "
                "not determine the temperature, since s(c u) = c^p s(u) for this function; "
                "give a temperature, or take another function, such as tanh."
            )

    @property
    def _function(self) -> Callable[[Array], Array]:
        return self.function if callable(self.function) else FUNCTIONS[self.function]

    def _standard_priors(self, num_experts: int, num_inputs: int, dtype):
        shape, one = (num_inputs + 1, num_experts), jnp.ones((), dtype)
        scores = StudentT(self.df, 0 * one, self.scale * one).expand(shape).to_event(2)
        bias = IsotropicT(self.df, self.bias_scale * one, num_experts - 1)
        found = {"gate": scores, "gate_bias": InUnits(bias, [ZeroSumTransform(1)])}
        if self.temperature is None:
            found["temperature"] = LogNormal(0 * one, self.temperature_scale * one)
        return found

    def priors(self, num_experts, units):
        d, dtype = len(units.x_scale), units.x_scale.dtype
        found = self._standard_priors(num_experts, d, dtype)
        one = jnp.ones((), dtype)
        shape = (d + 1, num_experts)
        scores = StudentT(self.df, 0 * one, one).expand(shape).to_event(2)
        center, scale = units.x_center, units.x_scale
        to_units = Recentred(center, scale, 1, 0.0, self.scale)
        return found | {"gate": InUnits(scores, [to_units])}

    def to_units(self, units):
        rest = {"gate_bias": IdentityTransform()}
        if self.temperature is None:
            rest["temperature"] = IdentityTransform()
        return {"gate": Recentred(units.x_center, units.x_scale, 1)} | rest

    def even(self, num_experts, units):
        # Scores of zero would have no slope where the activation has none. So experts look
        # in different directions from the beginning, though with equal shares on average.
        d, dtype = len(units.x_scale), units.x_scale.dtype
        angle = jnp.pi * jnp.arange(num_experts, dtype=dtype) / num_experts
        turns = jnp.arange(1, d + 1, dtype=dtype)[:, None]
        found = {
            "gate": jnp.concatenate([0.1 * jnp.cos(angle)[None], jnp.cos(turns * angle)]),
            "gate_bias": jnp.zeros(num_experts, dtype),
        }
        if self.temperature is None:
            found["temperature"] = jnp.ones((), dtype)
        return found

    def log_share(self, sites, x):
        return jax.nn.log_softmax(self._logits(sites, design(x)), axis=-1)

    def _logits(self, sites: Sites, z: Float[Array, "n t"]) -> Float[Array, "n k"]:
        scores = self._function(z @ sites["gate"]) + sites["gate_bias"]
        return scores / sites.get("temperature", self.temperature)

    def better(self, sites, x, r, share, log_density, use_prior):
        r"""A step of Fisher scoring, damped.

        The direction is $C^{-1} g$ with the slope $g$ of the objective and $C$ the expected
        curvature of $\sum_{ik} r_{ik} \log π_k$, positive definite with a unit of prior.
        """
        K, z = r.shape[1], design(x)
        own = {name: sites[name] for name in self.dims()}
        if "temperature" in own:
            own["temperature"] = jnp.log(own["temperature"])
        flat, unravel = ravel_pytree(own)

        def sites_at(flat):
            found = unravel(flat)
            # A common shift of the logits changes no share, and is not a coordinate.
            bias = found["gate_bias"]
            found["gate_bias"] = bias - bias.mean()
            if "temperature" in found:
                found["temperature"] = jnp.exp(found["temperature"])
            return found

        def logits(flat):
            return self._logits(sites_at(flat), z)

        def objective(flat):
            log_share = jax.nn.log_softmax(logits(flat), axis=-1)
            found = (r * log_share).sum()
            if use_prior:
                priors = self._standard_priors(K, x.shape[1], x.dtype)
                at = sites_at(flat)
                found += sum(p.log_prob(at[name]).sum() for name, p in priors.items())
            return found

        slope = jax.grad(objective)(flat)
        each = jax.jacfwd(logits)(flat)
        middle = jnp.einsum("nk,nkp->np", share, each)
        curvature = jnp.einsum("nk,nkp,nkq->pq", share, each, each) - middle.T @ middle
        curvature = curvature + jnp.eye(len(flat), dtype=flat.dtype) / self.scale**2
        step = solve_positive(curvature, slope)
        size = damped(lambda size: objective(flat + size * step), slope @ step)
        return sites_at(flat + size * step)

    def dims(self, term="term"):
        found: dict[str, tuple[str, ...]] = {
            "gate": (term, "expert"),
            "gate_bias": ("expert",),
        }
        return found | ({"temperature": ()} if self.temperature is None else {})


def _is_homogeneous(function: Callable[[Array], Array]) -> bool:
    """Whether s(c u) = c^p s(u) for c > 0, as far as a few points show."""
    u = np.array([-1.7, -0.6, 0.4, 1.3])
    one, *more = (np.asarray(function(jnp.asarray(c * u))) for c in (1.0, 2.0, 3.0))
    at = int(np.argmax(np.abs(one)))
    if one[at] == 0.0:
        return True
    ratio = more[0][at] / one[at]
    if ratio <= 0:
        return False
    power = np.log2(ratio)
    scaled = (c**power * one for c in (2.0, 3.0))
    return all(np.allclose(a, b, rtol=1e-4) for a, b in zip(more, scaled, strict=True))
