"""Relevance vector machines that classify."""

from functools import partial

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data

from probkit.models import sbl
from probkit.sklearn.kernels import KernelRows, varying
from probkit.sklearn.run import fitted, in_float64


class RelevanceVectorClassifier(ClassifierMixin, BaseEstimator):
    """Classification by kernel functions at the training points, few of which stay.

    With more than two classes there is one fit per class, against all others, and the
    probabilities are divided by their sum.

    Args:
        kernel, lengthscale: as for `RelevanceVectorRegressor`.
        method: `sbl.LogisticTypeII(prune=0)`, the default, with its settings.
        random_state: an int, a `RandomState` or None, of which the key is made.

    Attributes:
        classes_: the labels.
        relevance_: numbers of the training points in the model of any class.
        relevance_vectors_: these points.
        fits_: the `pk.Fit` of each class; with two classes, of the second.
    """

    def __init__(
        self, kernel="rbf", *, lengthscale="scale", method=None, random_state=None
    ):
        self.kernel = kernel
        self.lengthscale = lengthscale
        self.method = method
        self.random_state = random_state

    def fit(self, X, y):
        """Fit the model to X, `(n_samples, n_features)`, and labels y, `(n_samples,)`."""
        X, y = validate_data(self, X, y, dtype=np.float64, ensure_min_samples=2)
        check_classification_targets(y)
        self.classes_, codes = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise ValueError("y has one class only; give labels of two classes or more.")
        self.rows_ = KernelRows.of(X, self.kernel, self.lengthscale)
        rows = self.rows_(X)
        varies = varying(rows)
        method = sbl.LogisticTypeII(prune=0) if self.method is None else self.method
        labels = range(len(self.classes_)) if len(self.classes_) > 2 else [1]
        self.fits_, self.draws_ = [], []
        for label in labels:
            fit = fitted(
                sbl.LogisticSBL(),
                partial(sbl.Classes, codes == label, rows[:, varies]),
                method,
                self.random_state,
            )
            self.fits_.append(fit)
            self.draws_.append(_draws(fit, varies))
        used = np.any([weight.any(1) for weight, _ in self.draws_], axis=0)
        self.relevance_ = np.flatnonzero(used)
        self.relevance_vectors_ = X[self.relevance_]
        return self

    def predict_proba(self, X):
        """The probability of each class at X, `(n_samples, n_classes)`."""
        check_is_fitted(self)
        rows = self.rows_(validate_data(self, X, dtype=np.float64, reset=False))
        of_class = [
            expit(rows @ weight + intercept).mean(1) for weight, intercept in self.draws_
        ]
        if len(of_class) == 1:
            of_class = [1 - of_class[0], of_class[0]]
        table = np.column_stack(of_class)
        return table / table.sum(1, keepdims=True)

    def predict(self, X):
        """The most probable class at X."""
        probability = self.predict_proba(X)
        return self.classes_[probability.argmax(1)]


def _draws(fit, varies: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws of the weights, `(atom, draw)`, and of the intercept, `(draw,)`."""
    posterior = fit.posterior.stack(sample=("chain", "draw"))
    scale = posterior["global_scale"] * posterior["local_scale"] * posterior["standard"]
    mean, sd = (
        np.asarray(a) for a in in_float64(lambda: (fit.data.center, fit.data.scale))
    )
    weight = np.zeros((len(varies), posterior.sizes["sample"]))
    weight[varies] = scale.transpose("atom", "sample").values / sd[:, None]
    return weight, posterior["level"].values - mean @ weight[varies]
