"""How often predicted classes are right, compared with their probabilities."""

from typing import Any, NamedTuple

import numpy as np

from probkit.validate import as_array, whole


class Reliability(NamedTuple):
    """Queries in bins of equal width by the probability of their most probable class.

    Attributes:
        num: the number of queries in each bin, `(b,)`.
        confidence: the mean probability in each bin; NaN where it is empty.
        accuracy: how often the most probable class is right there.
    """

    num: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def error(self) -> float:
        """The expected calibration error: the mean over queries of the difference between
        confidence and accuracy of their bins.
        """
        full = self.num > 0
        apart = np.abs(self.confidence - self.accuracy)[full]
        return float((self.num[full] * apart).sum() / self.num.sum())


def reliability(probability: Any, y: Any, *, num_bins: int = 15) -> Reliability:
    """Confidence and accuracy of predicted classes.

    Args:
        probability: of each class, `(..., n)`, such as the mean over draws of
            `probability` from `pk.predict`.
        y: the class of each query, `(...)`, whole numbers from 0. It may lack leading axes
            of `probability`, such as that of tasks: `shots.classes()`.
        num_bins: the number of bins between zero and one.

    Returns:
        The bins; `error` is the expected calibration error.

    Raises:
        ValueError: for probabilities that do not sum to one, other shapes, and values that
            are no classes.

    Source: Guo, Pleiss, Sun & Weinberger (2017), "On calibration of modern neural
    networks".
    """
    p = np.asarray(as_array(probability, "reliability(probability)"), float)
    bins = whole("reliability(num_bins", 1)(num_bins)
    if p.ndim < 2 or p.size == 0 or not np.allclose(p.sum(-1), 1, atol=1e-4):
        raise ValueError(
            f"`reliability(probability)` has shape {p.shape}, and its last axis does not "
            "sum to one everywhere; give one probability per class."
        )
    classes = np.asarray(as_array(y, "reliability(y)"))
    try:
        classes = np.broadcast_to(classes, p.shape[:-1])
    except ValueError:
        raise ValueError(
            f"`reliability(probability, y)` got shapes {p.shape} and {classes.shape}; give "
            "one class for each query."
        ) from None
    if not np.isin(classes, np.arange(p.shape[-1])).all():
        raise ValueError(
            f"`reliability(y)` takes the classes 0 to {p.shape[-1] - 1}, and has others."
        )
    top, right = p.max(-1).ravel(), (p.argmax(-1) == classes).ravel()
    at = np.clip(np.ceil(top * bins).astype(int) - 1, 0, bins - 1)
    count = np.bincount(at, minlength=bins)
    sums = [np.bincount(at, weights, bins) for weights in (top, right)]
    with np.errstate(invalid="ignore"):
        confidence, accuracy = (total / count for total in sums)
    return Reliability(count, confidence, accuracy)
