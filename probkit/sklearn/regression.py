"""Sparse Bayesian regression on columns, or on kernel functions."""

from typing import Any, NamedTuple

import numpy as np
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from probkit.fits.value import Fit
from probkit.method import AbstractMethod
from probkit.models import sbl
from probkit.sklearn.kernels import KernelRows, varying
from probkit.sklearn.run import fitted, in_float64, numeric


class Line(NamedTuple):
    """A fitted line, in NumPy: what prediction needs.

    Attributes:
        fit: the fit.
        weight: posterior mean of the coefficients, `(n,)`, zero off the support.
        support: which coefficients are in the model, `(n,)`.
        covariance: of the coefficients in the support, in their order.
        level: the mean of `y`, or zero without an intercept.
        center: the mean of the columns, `(n,)`, or zero.
        level_variance: of the line at `center`, in squared units of `y`.
        noise: variance of the noise, in squared units of `y`.
    """

    fit: Fit
    weight: np.ndarray
    support: np.ndarray
    covariance: np.ndarray
    level: float
    center: np.ndarray
    level_variance: float
    noise: float

    @property
    def intercept(self) -> float:
        return float(self.level - self.center @ self.weight)

    def at(self, rows: np.ndarray) -> np.ndarray:
        return (rows - self.center) @ self.weight + self.level

    def sd_at(self, rows: np.ndarray) -> np.ndarray:
        """The sd of new observations, with their noise."""
        inside = (rows - self.center)[:, self.support]
        spread = np.einsum("ij,jk,ik->i", inside, self.covariance, inside)
        return np.sqrt(spread + self.level_variance + self.noise)


def line(
    rows: np.ndarray,
    y: np.ndarray,
    intercept: bool,
    normalise: bool,
    method: AbstractMethod | None,
    random_state: Any,
) -> Line:
    """The fit of a line to rows. Columns that say nothing get the coefficient zero."""
    count, varies = rows.shape[1], varying(rows, intercept)
    inside = rows - rows.mean(0) if intercept else rows
    fit = fitted(
        sbl.KroneckerSBL(),
        lambda: sbl.Measurements(
            y, [rows[:, varies]], intercept=intercept, normalise=normalise
        ),
        sbl.TypeII() if method is None else method,
        random_state,
    )
    sites = {name: np.asarray(a) for name, a in in_float64(fit.sites).items()}
    noise = float(sites["noise_sd"]) ** 2
    prior = (sites["global_scale"] * sites["local_scale_atom"]) ** 2
    if normalise:
        prior = prior / (inside[:, varies] ** 2).mean(0)
    weight, support = np.zeros(count), np.zeros(count, bool)
    support[varies] = prior > 0
    # From the precision: in the difference of prior and explained variance digits are lost.
    columns = inside[:, support]
    precision = columns.T @ columns / noise + np.diag(1 / prior[prior > 0])
    covariance = np.linalg.inv(precision)
    level = y.mean() if intercept else 0.0
    weight[support] = covariance @ columns.T @ (y - level) / noise
    center = rows.mean(0) if intercept else np.zeros(count)
    variance = noise / len(y) if intercept else 0.0
    return Line(fit, weight, support, covariance, level, center, variance, noise)


class SparseBayesRegressor(RegressorMixin, BaseEstimator):
    """Linear regression with a variance for each coefficient: `sbl.KroneckerSBL`.

    Args:
        fit_intercept: whether there is an unknown constant, with a flat prior.
        normalise: whether the prior of a coefficient is relative to the length of its
            column, so that the fit does not depend on the units of columns.
        method: `sbl.TypeII()`, the default, or `sbl.Sequential()`, with their settings.
        random_state: an int, a `RandomState` or None, of which the key is made.

    Attributes:
        coef_: posterior mean of the coefficients, `(n_features,)`; zero off the support.
        coef_sd_: their sds given the variances, of the same shape.
        intercept_: posterior mean of the constant.
        support_: which coefficients are in the model, truth values.
        noise_sd_: sd of the noise, in the units of y.
        fit_: the `pk.Fit`.
    """

    def __init__(
        self, *, fit_intercept=True, normalise=True, method=None, random_state=None
    ):
        self.fit_intercept = fit_intercept
        self.normalise = normalise
        self.method = method
        self.random_state = random_state

    def fit(self, X, y):
        """Fit the model to X, `(n_samples, n_features)`, and y, `(n_samples,)`."""
        X, y = numeric(self, X, y)
        self.line_ = line(
            X, y, self.fit_intercept, self.normalise, self.method, self.random_state
        )
        self.fit_, self.coef_ = self.line_.fit, self.line_.weight
        self.intercept_, self.support_ = self.line_.intercept, self.line_.support
        self.coef_sd_ = np.zeros_like(self.coef_)
        self.coef_sd_[self.support_] = np.sqrt(np.diag(self.line_.covariance))
        self.noise_sd_ = float(np.sqrt(self.line_.noise))
        return self

    def predict(self, X, return_std=False):
        """The mean of y at X; with `return_std` also the sd of a new y, with its noise."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        mean = self.line_.at(rows)
        return (mean, self.line_.sd_at(rows)) if return_std else mean


class RelevanceVectorRegressor(RegressorMixin, BaseEstimator):
    """Regression on kernel functions at the training points, few of which stay.

    Args:
        kernel: "rbf", a kernel of GPJax, or a function of two arrays of points that
            returns the matrix of its values, as in `sbl.KernelBasis`.
        lengthscale: of "rbf", in the units of X; "scale" is the root of half the mean
            square distance of a point to the mean of X, as in `SVC(gamma="scale")`.
        fit_intercept: whether there is an unknown constant, with a flat prior.
        method: `sbl.Sequential(prune=0)`, the default, or `sbl.TypeII()`, with their
            settings. Kernel functions of neighbours are nearly the same, so that there are
            far fewer to choose from than points, and the price of `prune="ebic"` would be
            too high.
        random_state: an int, a `RandomState` or None, of which the key is made.

    Attributes:
        relevance_: numbers of the training points in the model.
        relevance_vectors_: the training points in the model.
        dual_coef_: posterior mean of their coefficients.
        intercept_: posterior mean of the constant.
        noise_sd_: sd of the noise, in the units of y.
        fit_: the `pk.Fit`.
    """

    def __init__(
        self,
        kernel="rbf",
        *,
        lengthscale="scale",
        fit_intercept=True,
        method=None,
        random_state=None,
    ):
        self.kernel = kernel
        self.lengthscale = lengthscale
        self.fit_intercept = fit_intercept
        self.method = method
        self.random_state = random_state

    def fit(self, X, y):
        """Fit the model to X, `(n_samples, n_features)`, and y, `(n_samples,)`."""
        X, y = numeric(self, X, y)
        self.rows_ = KernelRows.of(X, self.kernel, self.lengthscale)
        method = sbl.Sequential(prune=0) if self.method is None else self.method
        found = line(self.rows_(X), y, self.fit_intercept, True, method, self.random_state)
        self.line_, self.fit_, self.intercept_ = found, found.fit, found.intercept
        self.relevance_ = np.flatnonzero(found.support)
        self.relevance_vectors_ = X[self.relevance_]
        self.dual_coef_ = found.weight[self.relevance_]
        self.noise_sd_ = float(np.sqrt(found.noise))
        return self

    def predict(self, X, return_std=False):
        """The mean of y at X; with `return_std` also the sd of a new y, with its noise."""
        check_is_fitted(self)
        rows = self.rows_(validate_data(self, X, dtype=np.float64, reset=False))
        mean = self.line_.at(rows)
        return (mean, self.line_.sd_at(rows)) if return_std else mean
