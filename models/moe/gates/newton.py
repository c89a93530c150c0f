r"""The Newton step of a gate.

Given responsibilities $R$, a gate with logits $l = Z b$ and shares $Π$ raises

$$Q(b) = \sum_i \sum_k r_{ik} \log π_k(x_i),$$

which is concave, with gradient $Z^\top (R - Π)$ and $-H_{kl} = Z^\top \mathrm{diag}(π_k
(δ_{kl} - π_l)) Z$. It is singular along common shifts of all experts, so that the step is
taken in $K - 1$ coordinates, with an orthonormal basis $U$ of the vectors with sum zero.

EM needs only a step that does not lower $Q$ (generalised EM). A full solve costs more per
step and does not save steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float
from numpyro.distributions.transforms import ZeroSumTransform

from probkit.models.moe.least_squares import solve_positive, weighted_grams

HALVINGS = 12


def newton_step(
    gate: Float[Array, "t k"],
    z: Float[Array, "n t"],
    r: Float[Array, "n k"],
    share: Float[Array, "n k"],
    precision: Float[Array, "t 1"],
) -> tuple[Float[Array, "t k"], Float[Array, ""]]:
    """The whole step, and the slope of the objective along it.

    Args:
        gate: $b$, whose rows sum to zero.
        z: $Z$.
        r: $R$.
        share: $Π$ at `gate`; zero for experts that are out of the question.
        precision: of a normal prior of each row.
    """
    (t, K), n = gate.shape, len(z)
    U = zero_sum_basis(K, z.dtype)
    gradient = (z.T @ (r - share) - precision * gate) @ U
    spread = ((share @ U)[:, :, None] * z[:, None, :]).reshape(n, (K - 1) * t)
    grams = weighted_grams(z, share)
    diagonal = jnp.einsum("ka,kb,kij->aibj", U, U, grams)
    curvature = diagonal.reshape((K - 1) * t, (K - 1) * t) - spread.T @ spread
    tiny = 1e2 * jnp.finfo(z.dtype).eps * (1 + jnp.trace(curvature) / len(curvature))
    curvature = curvature + jnp.diag(jnp.tile(precision[:, 0], K - 1) + tiny)
    free = solve_positive(curvature, gradient.T.reshape(-1)).reshape(K - 1, t).T
    return free @ U.T, (gradient * free).sum()


def damped(
    objective: Callable[[Array], Array], slope: Float[Array, ""]
) -> Float[Array, ""]:
    """A step size at which the objective rises: 1, 1/2, 1/4, ..., or 0 if none does.

    Args:
        objective: a function of the step size.
        slope: its slope at zero.
    """
    before = objective(jnp.zeros_like(slope))

    def too_long(carry):
        size, halvings = carry
        # Not `<`, because a NaN is too long as well.
        enough = objective(size) >= before + 1e-4 * size * slope
        return ~enough & (halvings < HALVINGS)

    size, halvings = jax.lax.while_loop(
        too_long,
        lambda carry: (carry[0] / 2, carry[1] + 1),
        (jnp.ones_like(slope), jnp.zeros((), jnp.int32)),
    )
    return jnp.where(halvings < HALVINGS, size, 0.0)


def zero_sum_basis(count: int, dtype) -> Float[Array, "k f"]:
    """Orthonormal columns that span all vectors of `count` entries with sum zero."""
    return ZeroSumTransform(1)(jnp.eye(count - 1, dtype=dtype)).T
