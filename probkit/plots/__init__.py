"""Pictures of a fit.

Every function takes a `Fit` first, draws into `ax` if it is given one, and returns the
axes. `posterior`, `labels` and `objective` serve any fit; `band` and `memberships` serve
regressions. An expert has one colour in all of them.
"""

from probkit.plots.any import objective, posterior
from probkit.plots.mixture import labels, memberships
from probkit.plots.regression import band

__all__ = ["band", "labels", "memberships", "objective", "posterior"]
