"""The model about the solution of an earlier round, with what draws have in common."""

import equinox as eqx
import numpyro

from probkit.method.programs import jit_for_one_run
from probkit.models.pde.model import SpectralGP
from probkit.models.pde.problem import Problem
from probkit.models.pde.solution import Collocation, Fields


class Linearised(eqx.Module):
    """The model's program about given fields, with what follows from the problem alone."""

    model: SpectralGP
    fields: Fields
    collocation: Collocation

    def __call__(self, problem: Problem) -> None:
        priors = self.model.priors(problem)
        sites = {name: numpyro.sample(name, prior) for name, prior in priors.items()}
        self.model.observe(sites, problem, self.fields, self.collocation)


@jit_for_one_run
def collocation(model: SpectralGP, data: Problem) -> Collocation:
    """That of the problem, once for all that use it."""
    return model.collocation(data)
