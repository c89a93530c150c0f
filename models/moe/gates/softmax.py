r"""The softmax gate.

$$π_k(x) = \frac{e^{z^\top b_k / τ}}{\sum_j e^{z^\top b_j / τ}}, \qquad z = (1, x, \dots).$$

Source: Jordan & Jacobs (1994), "Hierarchical mixtures of experts and the EM algorithm".
Departs: rows of $b$ sum to zero, rather than that one expert is the reference, so that a
prior treats all experts alike; and one damped Newton step takes the place of a full solve.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions.transforms import ZeroSumTransform

from probkit.distributions import InUnits, IsotropicT
from probkit.models.moe.gates.base import AbstractGate
from probkit.models.moe.gates.newton import damped, newton_step
from probkit.models.moe.terms import Recentred, design, exponents
from probkit.validate import positive, whole


class Softmax(AbstractGate):
    r"""Logits that are linear in the inputs.

    Site: `gate` $b$, `(term, expert)`, in logits per unit of the input; rows sum to zero.

    The prior of each row is a multivariate t distribution, which does not change if the
    experts are renumbered. Its tails leave room for a switch between experts that is
    sharp against the scale of the input, as where the input spans orders of magnitude.

    Attributes:
        scale: prior scale of the logits, at the center and per scale of the input.
        df: degrees of freedom of the prior, above 0.
        degree: of the polynomial, 1 or more.
        temperature: $τ$.
    """

    scale: float = eqx.field(default=2.5, converter=positive("Softmax(scale"))
    df: float = eqx.field(default=3.0, converter=positive("Softmax(df"))
    degree: int = eqx.field(default=1, converter=whole("Softmax(degree", 1))
    temperature: float = eqx.field(default=1.0, converter=positive("Softmax(temperature"))

    def priors(self, num_experts, units):
        terms = len(exponents(len(units.x_scale), self.degree))
        scale = jnp.full(terms, self.scale, units.x_scale.dtype)
        rows = IsotropicT(self.df, scale, num_experts - 1).to_event(1)
        return {"gate": InUnits(rows, [self.to_units(units)["gate"], ZeroSumTransform(1)])}

    def to_units(self, units):
        return {"gate": Recentred(units.x_center, units.x_scale, self.degree)}

    def even(self, num_experts, units):
        terms = len(exponents(len(units.x_scale), self.degree))
        return {"gate": jnp.zeros((terms, num_experts), units.x_scale.dtype)}

    def log_share(self, sites, x):
        return jax.nn.log_softmax(self.rows(x) @ sites["gate"], axis=-1)

    def rows(self, x: Float[Array, "n d"]) -> Float[Array, "n t"]:
        z = design(x, self.degree)
        return z if self.temperature == 1.0 else z / self.temperature

    def better(self, sites, x, r, share, log_density, use_prior):
        """One Newton step, damped.

        The log prior is replaced by the parabola that touches it from below, so that what
        raises one raises the other.
        """
        gate, z = sites["gate"], self.rows(x)
        if gate.shape[1] == 1:
            return {"gate": gate}
        precision = self.precision(gate, use_prior)
        step, slope = newton_step(gate, z, r, share, precision)
        pull, logits, along = z.T @ r, z @ gate, z @ step

        def objective(size):
            # Responsibilities sum to one, so that Q = <Z'R, b> - Σ log Σ exp.
            b = gate + size * step
            push = jax.nn.logsumexp(logits + size * along, axis=1).sum()
            return (pull * b).sum() - push - 0.5 * (precision * b**2).sum()

        return {"gate": gate + damped(objective, slope) * step}

    def precision(self, gate: Float[Array, "t k"], use_prior: bool) -> Float[Array, "t 1"]:
        """Of the normal prior that touches the t prior of each row from below."""
        if not use_prior:
            return jnp.zeros((len(gate), 1), gate.dtype)
        free = gate.shape[1] - 1
        square = (gate**2).sum(1, keepdims=True)
        return (self.df + free) / (self.df * self.scale**2 + square)

    def dims(self, term="term"):
        return {"gate": (term, "expert")}
