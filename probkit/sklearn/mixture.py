"""A mixture of experts as a regressor."""

from typing import Any

import numpy as np
from scipy.special import softmax
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.utils.validation import check_is_fitted, validate_data

from probkit.infer import EM
from probkit.models import moe
from probkit.sklearn.kernels import varying
from probkit.sklearn.run import fitted, numeric


class MixtureOfExpertsRegressor(RegressorMixin, BaseEstimator):
    """Lines that take turns, with a gate that says where: `moe.MixtureOfExperts`.

    Args:
        num_experts: number of lines.
        method: `pk.EM()`, the default, `pk.NUTS()`, or another method, with its settings.
        random_state: an int, a `RandomState` or None, of which the key is made.

    Attributes:
        gate_, expert_coef_: mean over the draws of the gate and of the lines, with the
            intercepts in the first row, `(n_features + 1, num_experts)`.
        noise_sd_: the same of the noise of each expert, in the units of y.
        fit_: the `pk.Fit`.
    """

    def __init__(self, num_experts=2, *, method=None, random_state=None):
        self.num_experts = num_experts
        self.method = method
        self.random_state = random_state

    def fit(self, X, y):
        """Fit the model to X, `(n_samples, n_features)`, and y, `(n_samples,)`."""
        X, y = numeric(self, X, y)
        self.varies_ = varying(X)
        rows = X[:, self.varies_]
        self.fit_ = fitted(
            moe.MixtureOfExperts(self.num_experts),
            lambda: moe.Pairs(rows, y),
            EM() if self.method is None else self.method,
            self.random_state,
        )
        posterior = self.fit_.posterior.stack(sample=("chain", "draw"))
        posterior = posterior.transpose("sample", ...)
        self.draws_ = [
            posterior[name].values for name in ("gate", "coefficient", "noise_sd")
        ]
        self.gate_, self.expert_coef_, self.noise_sd_ = (a.mean(0) for a in self.draws_)
        return self

    def memberships(self, X):
        """The probability of each expert at X, `(n_samples, num_experts)`."""
        return self._gates(self._rows(X)).mean(0)

    def predict(self, X, return_std=False):
        """The mean of y at X; with `return_std` also the sd of a new y, with its noise."""
        z, (_, coefficient, noise_sd) = self._rows(X), self.draws_
        gates, lines = self._gates(z), z @ coefficient
        mean = (gates * lines).sum(-1).mean(0)
        if not return_std:
            return mean
        square = (gates * (noise_sd[:, None] ** 2 + lines**2)).sum(-1).mean(0)
        return mean, np.sqrt(np.maximum(square - mean**2, 0.0))

    def _rows(self, X: Any) -> np.ndarray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float64, reset=False)[:, self.varies_]
        return np.column_stack([np.ones(len(X)), X])

    def _gates(self, z: np.ndarray) -> np.ndarray:
        """The gate of each draw at each row."""
        return softmax(z @ self.draws_[0], axis=-1)
