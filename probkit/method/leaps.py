r"""Leaps: where steps in one direction follow each other, one goes on along it at once.

A step maps coordinates $x$ to $g(x)$ and never lowers an objective. Near an optimum
residuals $f = g(x) - x$ shrink by one factor $λ$, and the steps to come add up to
$λ/(1 - λ)$ times the last one. Two steps in a row give this number, and the next begins at

$$g_t + s (g_t - g_{t-1}), \qquad
s = -\frac{(f_t - f_{t-1})^T f_t}{|f_t - f_{t-1}|^2}.$$

It is Anderson's acceleration with a memory of one. If residuals grow, as where two
components of a mixture begin to differ, $s = 1$. If the objective at that place is lower
than before, the place is dropped, and the next step begins at $g_t$; so the objective never
falls.

Source: Anderson (1965), "Iterative procedures for nonlinear integral equations"; Henderson
& Varadhan (2019), "Damped Anderson acceleration with restarts and monotonicity control for
accelerating EM and EM-like algorithms", for the guard. Departs: a memory of one, and no
damping.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

# Gains of steps that begin at leaps are uneven: a small one says less than those of plain
# steps. A run has settled after so many small ones in a row.
QUIET = 4
# Which optimum is found is decided by early steps, which gain more than this, in nats. They
# are plain ones.
EARLY = 10.0


class Leap(NamedTuple):
    """Where the next step begins, and what the last one says of the steps to come.

    Attributes:
        at: where the next step begins, in coordinates without constraints, `(c,)`.
        ahead: whether that is beyond the end of the last step.
        began: where the last step began, `(c,)`.
        ended: where it ended, `(c,)`.
        quiet: the number of small gains in a row.
    """

    at: Float[Array, " c"]
    ahead: Bool[Array, ""]
    began: Float[Array, " c"]
    ended: Float[Array, " c"]
    quiet: Int[Array, ""]


def no_leap(x: Float[Array, " c"]) -> Leap:
    """Before the first step, which begins at `x`."""
    return Leap(x, jnp.zeros((), bool), x, x, jnp.zeros((), jnp.int32))


def leapt(
    leap: Leap, end: Float[Array, " c"], gain: Float[Array, ""], small: Bool[Array, ""]
) -> Leap:
    """After one step more.

    Args:
        leap: where it began, and what the one before says.
        end: where it ended, in coordinates.
        gain: by how much the objective where it began is above the one before, in nats.
        small: whether this, and what is left to gain, are small.
    """
    now, before = end - leap.at, leap.ended - leap.began
    change = now - before
    s = -(change @ now) / (change @ change)
    ahead = gain < EARLY
    s = jnp.where(ahead, jnp.where(s > 0, s, 1.0), 0.0)
    quiet = jnp.where(small, leap.quiet + 1, 0)
    return Leap(end + s * (end - leap.ended), ahead, leap.at, end, quiet)


def dropped(leap: Leap) -> Leap:
    """After a leap to where the objective is lower: the next step begins where the last one
    ended.
    """
    return leap._replace(at=leap.ended, ahead=jnp.zeros((), bool))
