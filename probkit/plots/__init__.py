"""Pictures of a fit.

Every function takes a `Fit` first, draws into `ax` if `ax` is given, and returns the axes.
`posterior` and `objective` are for any fit, `band` is for regressions, `labels` and
`memberships` are for mixtures. Each label of a mixture has the same colour in all pictures.
"""

from probkit.plots.any import objective, posterior
from probkit.plots.mixture import labels, memberships
from probkit.plots.regression import band

__all__ = ["band", "labels", "memberships", "objective", "posterior"]
