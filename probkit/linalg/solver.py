"""lineax's `linear_solve` by our rules."""

import jax
import jax.numpy as jnp
import lineax as lx

from probkit.linalg.questions import solve
from probkit.linalg.structured import is_complex


class Structured(lx.AbstractLinearSolver):
    """`lx.linear_solve(op, b, linalg.Structured())` solves by `linalg.solve`.

    Derivatives are those of lineax, for operators and for vectors. It takes no arguments,
    and raises the errors of `linalg.solve`.
    """

    def init(self, operator, options):
        # Plain numbers do not decide a dtype, as in `2.0 * op`. Within lineax they would,
        # because it forgets that they are plain ones.
        real = jnp.finfo(operator.in_structure().dtype).dtype

        def settled(x):
            plain = getattr(x, "weak_type", False) and not is_complex(x.dtype)
            return x.astype(real) if plain else x

        return jax.tree.map(settled, operator)

    def compute(self, state, vector, options):
        return solve(state, vector), lx.RESULTS.successful, {}

    def transpose(self, state, options):
        return state.transpose(), options

    def conj(self, state, options):
        return lx.conj(state), options

    def assume_full_rank(self):
        return True
