"""Pictures of a fit.

Every function draws into `ax` if `ax` is given, and returns the axes. `posterior` and
`objective` are for any fit, `band` is for regressions, `labels` and `memberships` are for
mixtures; they take a `Fit` first. Each label of a mixture has the same colour in all
pictures. `factors` and `surface` draw what `tucker` models answer, `shrinkage` and
`arriving` what `meta` models do. `reliability` compares probabilities of classes with how
often they are right.
"""

from probkit.plots.any import objective, posterior
from probkit.plots.classification import reliability
from probkit.plots.factors import factors, surface
from probkit.plots.groups import arriving, shrinkage
from probkit.plots.mixture import labels, memberships
from probkit.plots.regression import band

__all__ = [
    "arriving",
    "band",
    "factors",
    "labels",
    "memberships",
    "objective",
    "posterior",
    "reliability",
    "shrinkage",
    "surface",
]
