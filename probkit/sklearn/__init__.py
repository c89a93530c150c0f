"""Estimators for scikit-learn, each a few lines over `pk.fit`.

They need the extra `probkit-bayes[sklearn]`. An estimator computes in float64 inside, and
changes no setting of JAX. Its attributes are NumPy arrays. The fit itself is `fit_`, for
`pk.diagnose(estimator.fit_)` and the rest of the library; it holds float64 arrays, so call
`pk.enable_x64()` at the top of a program that uses it. To keep a fit in a file, use
`pk.save(estimator.fit_, ...)`, which is safe to read from others; a pickle is not.
"""

try:
    import sklearn as _sklearn  # noqa: F401
except ImportError:
    raise ImportError(
        "`probkit.sklearn` needs scikit-learn: `pip install 'probkit-bayes[sklearn]'`."
    ) from None

from probkit.sklearn.classification import RelevanceVectorClassifier
from probkit.sklearn.mixture import MixtureOfExpertsRegressor
from probkit.sklearn.regression import RelevanceVectorRegressor, SparseBayesRegressor

__all__ = [
    "MixtureOfExpertsRegressor",
    "RelevanceVectorClassifier",
    "RelevanceVectorRegressor",
    "SparseBayesRegressor",
]
