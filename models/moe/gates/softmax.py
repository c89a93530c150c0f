r"""The softmax gate, linear in the inputs.

$$π_k(x) = \frac{e^{z^\top b_k}}{\sum_j e^{z^\top b_j}}, \qquad z = (1, x).$$

Source: Jordan & Jacobs (1994), "Hierarchical mixtures of experts and the EM algorithm".
Departs: rows of $b$ sum to zero, rather than that one expert is the reference, so that a
prior treats all experts alike; and one damped Newton step takes the place of a full solve.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions.transforms import ZeroSumTransform

from probkit.distributions import FromStandard, InUnits, IsotropicT
from probkit.models.moe.design import design, solve_positive, weighted_grams
from probkit.models.moe.gates.base import AbstractGate
from probkit.validate import positive

HALVINGS = 12


class Softmax(AbstractGate):
    r"""Logits that are linear in the inputs.

    Site: `gate` $b$, `(term, expert)`, in logits per unit of the input; rows sum to zero.

    The prior of each row is a multivariate t distribution, which does not change if the
    experts are renumbered. Its tails leave room for a switch between experts that is
    sharp against the scale of the input, as where the input spans orders of magnitude.

    Attributes:
        scale: prior scale of the logits, at the center and per scale of the input.
        df: degrees of freedom of the prior, above 0.
    """

    scale: float = eqx.field(default=2.5, converter=positive("Softmax(scale"))
    df: float = eqx.field(default=3.0, converter=positive("Softmax(df"))

    def priors(self, num_experts, units):
        scale = jnp.full(len(units.x_scale) + 1, self.scale, units.x_scale.dtype)
        rows = IsotropicT(self.df, scale, num_experts - 1).to_event(1)
        return {"gate": InUnits(rows, [self.to_units(units)["gate"], ZeroSumTransform(1)])}

    def to_units(self, units):
        return {"gate": FromStandard(units.x_center, units.x_scale)}

    def even(self, num_experts, units):
        terms = len(units.x_scale) + 1
        return {"gate": jnp.zeros((terms, num_experts), units.x_scale.dtype)}

    def log_share(self, sites, x):
        return jax.nn.log_softmax(design(x) @ sites["gate"], axis=-1)

    def better(self, sites, x, r, share, use_prior):
        r"""One Newton step on $Q(b) = \sum_i \sum_k r_{ik} \log π_k(x_i)$, damped.

        $Q$ is concave, with gradient $Z^\top (R - Π)$ and $-H_{kl} = Z^\top
        \mathrm{diag}(π_k (δ_{kl} - π_l)) Z$, singular along common shifts of all experts.
        The step is therefore taken in $K - 1$ coordinates, with an orthonormal basis $U$
        of the vectors with sum zero. The log prior is replaced by the parabola that
        touches it from below, so that what raises one raises the other.
        """
        gate, z = sites["gate"], design(x)
        (t, K), n = gate.shape, len(x)
        if K == 1:
            return sites
        U, pull = zero_sum_basis(K, z.dtype), z.T @ r
        precision = self._precision(gate) if use_prior else jnp.zeros((t, 1), z.dtype)
        gradient = (pull - z.T @ share - precision * gate) @ U
        spread = ((share @ U)[:, :, None] * z[:, None, :]).reshape(n, (K - 1) * t)
        grams = weighted_grams(z, share)
        diagonal = jnp.einsum("ka,kb,kij->aibj", U, U, grams)
        curvature = diagonal.reshape((K - 1) * t, (K - 1) * t) - spread.T @ spread
        tiny = 1e2 * jnp.finfo(z.dtype).eps * (1 + jnp.trace(curvature) / len(curvature))
        ridge = jnp.tile(precision[:, 0], K - 1) + tiny
        curvature = curvature + jnp.diag(ridge)
        free = solve_positive(curvature, gradient.T.reshape(-1)).reshape(K - 1, t).T
        step, slope = free @ U.T, (gradient * free).sum()
        logits, along = z @ gate, z @ step

        def objective(size):
            # Responsibilities sum to one, so that Q = <Z'R, b> - Σ log Σ exp.
            b = gate + size * step
            push = jax.nn.logsumexp(logits + size * along, axis=1).sum()
            return (pull * b).sum() - push - 0.5 * (precision * b**2).sum()

        before = objective(0.0)

        def too_long(carry):
            size, halvings = carry
            # Not `<`, because a NaN is too long as well.
            enough = objective(size) >= before + 1e-4 * size * slope
            return ~enough & (halvings < HALVINGS)

        size, halvings = jax.lax.while_loop(
            too_long,
            lambda carry: (carry[0] / 2, carry[1] + 1),
            (jnp.ones((), z.dtype), jnp.zeros((), jnp.int32)),
        )
        return {"gate": jnp.where(halvings < HALVINGS, gate + size * step, gate)}

    def _precision(self, gate: Float[Array, "t k"]) -> Float[Array, "t 1"]:
        """Of the normal prior that touches the t prior of each row from below."""
        free = gate.shape[1] - 1
        square = (gate**2).sum(1, keepdims=True)
        return (self.df + free) / (self.df * self.scale**2 + square)

    def dims(self):
        return {"gate": ("term", "expert")}


def zero_sum_basis(count: int, dtype) -> Float[Array, "k f"]:
    """Orthonormal columns that span all vectors of `count` entries with sum zero."""
    return ZeroSumTransform(1)(jnp.eye(count - 1, dtype=dtype)).T
