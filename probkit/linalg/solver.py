"""lineax's `linear_solve` by our rules."""

import jax.numpy as jnp
import lineax as lx

from probkit.linalg.questions import solve


class Structured(lx.AbstractLinearSolver):
    """`lx.linear_solve(op, b, linalg.Structured())` solves by `linalg.solve`.

    Derivatives are those of lineax, for operators and for vectors. It takes no arguments,
    and raises the errors of `linalg.solve`.
    """

    def init(self, operator, options):
        return operator

    def compute(self, state, vector, options):
        # lineax forgets whether a number was a plain one, so that in `2.0 * op` it may set
        # the dtype in one place and not in another. What is declared sets it here.
        dtype = jnp.result_type(state.in_structure().dtype, vector)
        return solve(state, vector).astype(dtype), lx.RESULTS.successful, {}

    def transpose(self, state, options):
        return state.transpose(), options

    def conj(self, state, options):
        return lx.conj(state), options

    def assume_full_rank(self):
        return True
