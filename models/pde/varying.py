r"""An unknown coefficient that varies along an axis, a Gaussian process a priori.

$$k(x) = m + s \sum_j φ_j(x) θ_j, \qquad θ_j \sim N(0, 1)$$

with $φ_j$ the Karhunen-Loève functions of a Gaussian kernel of variance one: the
eigenvectors of its matrix at even points, carried to other points by the kernel itself
(Nyström). As many are kept as have nearly all of the variance.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from probkit.validate import as_array, positive, short

# The kernel's matrix is of so many points; the functions kept have this share of the
# variance, and are not more than so many.
POINTS, LEAST_SHARE, MOST_TERMS = 200, 1 - 1e-5, 16
# Their weights are looked for within so many sds.
WIDEST = 3.0


@dataclass(frozen=True)
class Varying:
    """An unknown coefficient that is a function of one axis. `Problem` checks it.

    A priori it is a Gaussian process with a Gaussian kernel. It may be negative: choose
    `mean` and `sd` so that it rarely is, where it must not be.

    Args:
        mean: its prior mean, in its units as they follow from the residual.
        sd: its prior standard deviation, in the same units.
        lengthscale: over which it changes, in units of the axis.
        along: the name of the axis; in one dimension it may be left out.
    """

    mean: Any
    sd: Any
    lengthscale: Any
    along: str | None = None


class Expansion(NamedTuple):
    """A coefficient that varies, as a sum over functions.

    Attributes:
        name: its name.
        axis: the number of its axis.
        ends: low and high end of the axis.
        mean: its prior mean.
        sd: its prior sd.
        lengthscale: of its kernel, in units of the axis.
        rank: the number of functions.
    """

    name: str
    axis: int
    ends: tuple[float, float]
    mean: float
    sd: float
    lengthscale: float
    rank: int

    @property
    def weights(self) -> tuple[str, ...]:
        """Names of the numbers that multiply the functions."""
        return tuple(f"{self.name}_{j}" for j in range(self.rank))

    def functions(self, x: np.ndarray) -> np.ndarray:
        r"""$s φ_j$ at points of the axis, `(n, rank)`, in units of the coefficient."""
        places, values, vectors = _eigen(self.ends, self.lengthscale)
        kept = slice(0, self.rank)
        across = _kernel(np.asarray(x), places, self.lengthscale)
        return self.sd * across @ vectors[:, kept] / np.sqrt(values[kept])


def read(name: str, given: Varying, box: dict[str, tuple[float, float]]) -> Expansion:
    """The expansion of what the user gave.

    Raises:
        ValueError: for an axis that does not exist, a number out of range, and a
            lengthscale that would need too many functions.
    """
    axes, where = list(box), f" in `Problem(unknown={{{name!r}: ...}})`"
    along = axes[0] if given.along is None and len(axes) == 1 else given.along
    if along not in axes:
        listed = ", ".join(f"`{axis}`" for axis in axes)
        raise ValueError(
            f"`Varying(along={short(given.along)})`{where}: it takes the name of an axis; "
            f"they are {listed}."
        )
    mean = np.asarray(as_array(given.mean, "Varying(mean=...)"))
    if mean.ndim > 0:
        raise ValueError(
            f"`Varying(mean={short(given.mean)})`{where}: it takes one number."
        )
    sd = positive("Varying(sd")(given.sd)
    lengthscale = positive("Varying(lengthscale")(given.lengthscale)
    ends = box[along]
    _, values, _ = _eigen(ends, lengthscale)
    rank = 1 + int(np.searchsorted(np.cumsum(values) / POINTS, LEAST_SHARE))
    if rank > MOST_TERMS:
        raise ValueError(
            f"`Varying(lengthscale={short(given.lengthscale)})`{where} is too short for an "
            f"axis from {ends[0]:.6g} to {ends[1]:.6g}: it takes {rank} functions, and "
            f"{MOST_TERMS} are the most; use a longer one."
        )
    return Expansion(name, axes.index(along), ends, float(mean), sd, lengthscale, rank)


def _kernel(x: np.ndarray, y: np.ndarray, lengthscale: float) -> np.ndarray:
    return np.exp(-0.5 * ((x[:, None] - y) / lengthscale) ** 2)


def _eigen(ends, lengthscale: float):
    """Even points, and the eigenvalues and eigenvectors there, the largest first."""
    places = np.linspace(ends[0], ends[1], POINTS)
    values, vectors = np.linalg.eigh(_kernel(places, places, lengthscale))
    return places, values[::-1], vectors[:, ::-1]
