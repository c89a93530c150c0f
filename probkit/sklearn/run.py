"""One fit inside an estimator: checked, in float64, with a key from a random state."""

import warnings
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from sklearn.base import BaseEstimator
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.validation import validate_data

from probkit.fits.fit import fit
from probkit.fits.value import Fit
from probkit.method import RESULTS, AbstractMethod, message
from probkit.model import AbstractData, AbstractModel


def in_float64[T](function: Callable[[], T]) -> T:
    """The result of a function that computes in float64, whatever JAX is set to."""
    with jax.enable_x64(True):
        return function()


def numeric(estimator: BaseEstimator, X: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
    """X, `(n, d)`, and y, `(n,)`, of a regression in float64, checked as scikit-learn does.

    Raises:
        ValueError: by scikit-learn, if there are fewer than two rows, or they do not fit.
    """
    X, y = validate_data(
        estimator, X, y, dtype=np.float64, y_numeric=True, ensure_min_samples=2
    )
    return X, y.astype(np.float64)


def fitted(
    model: AbstractModel,
    data: Callable[[], AbstractData],
    method: AbstractMethod,
    random_state: Any,
) -> Fit:
    """A fit. A run that has not settled warns, as estimators of scikit-learn do.

    Args:
        model: the model.
        data: a function that makes the data.
        method: the method.
        random_state: None, an int, or a `RandomState` of NumPy.

    Raises:
        ValueError: if the density is not finite.
    """
    seed = int(check_random_state(random_state).randint(np.iinfo(np.int32).max))

    def run():
        key = jax.random.key(seed)
        return fit(model, data(), method, key=key, throw=False, progress=False)

    found = in_float64(run)
    if found.result != "successful":
        text = f"{type(method).__name__}: {message(getattr(RESULTS, found.result))}"
        if found.result == "nonfinite":
            raise ValueError(text)
        warnings.warn(text, ConvergenceWarning, stacklevel=3)
    return found
