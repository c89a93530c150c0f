"""lineax's `linear_solve` by our rules."""

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
        return solve(state, vector), lx.RESULTS.successful, {}

    def transpose(self, state, options):
        return state.transpose(), options

    def conj(self, state, options):
        return lx.conj(state), options

    def assume_full_rank(self):
        return True
