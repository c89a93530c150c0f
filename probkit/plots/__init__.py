"""Pictures of a fit.

Every function draws into `ax` if `ax` is given, and returns the axes. `posterior` and
`objective` are for any fit, `band` is for regressions, `labels` and `memberships` are for
mixtures; they take a `Fit` first. Each label of a mixture has the same colour in all
pictures. `factors` and `surface` draw what `tucker` models answer.
"""

from probkit.plots.any import objective, posterior
from probkit.plots.factors import factors, surface
from probkit.plots.mixture import labels, memberships
from probkit.plots.regression import band

__all__ = ["band", "factors", "labels", "memberships", "objective", "posterior", "surface"]
