"""A warning if a source has frequencies above the Nyquist frequency of a grid."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from probkit.models.pde.spectrum import Pieces, power

# A thousandth of the amplitude. What is above Nyquist appears as a lower frequency, which
# the inverse of the equation amplifies. Less may come from a nonlinear term, such as the
# 1e-9 of u^3 in the Allen-Cahn examples, whose aliases in u and in the source are the same.
ALIASED_POWER = 1e-6
# A source that varies by less than rounding has no spectrum to look at.
ROUNDING_POWER = 1e-20
# The fine grid resolves frequencies up to this share of its own Nyquist frequency.
SEEN = 0.9
# The warning names the user's line that made the problem, not a line of the library.
INSIDE = (str(Path(__file__).parents[2]), str(Path(eqx.__file__).parent))


class AliasWarning(UserWarning):
    """The grid is too coarse, so that frequencies of the source appear as lower ones.

    The residual does not show it, because it is zero at every grid point for the false
    frequency as well.
    """


def warn_of_aliases(
    source: Float[Array, "..."],
    axes: Sequence[str],
    shape: Sequence[int],
    pieces: Sequence[Pieces],
    nyquist: Sequence[float],
) -> None:
    """Warn for each axis along which the source is too fast for the grid.

    Args:
        source: the source on the fine grid, or a number, in units of the residual.
        axes: names of the axes.
        shape: number of grid points along each axis.
        pieces: those of each axis, with the points of the fine grid.
        nyquist: highest frequency that the grid resolves, in cycles per unit of each axis.

    Warns:
        AliasWarning: for each axis along which too much power is above Nyquist.
    """
    values = np.asarray(source)
    if values.ndim == 0:
        return
    for i, axis in enumerate(axes):
        for lines, length in zip(
            pieces[i].split(values, i), pieces[i].lengths, strict=True
        ):
            frequency, level = power(lines, length)
            bearable = ALIASED_POWER * level.sum()
            rounding = ROUNDING_POWER * np.sum(lines**2) / lines.shape[-1]
            if level[frequency > nyquist[i]].sum() <= max(bearable, rounding):
                continue
            _warn(axis, shape[i], sum(pieces[i].lengths), nyquist[i], frequency, level)
            break


def _warn(axis: str, num: int, length: float, nyquist: float, frequency, level) -> None:
    """Warn of the highest frequencies along an axis, from its power by frequency."""
    bearable = ALIASED_POWER * level.sum()
    peak = frequency[np.argmax(np.where(frequency > nyquist, level, 0.0))]
    # The lowest frequency with no more than the bearable share above it.
    beyond = np.flip(np.cumsum(np.flip(level))) - level
    enough = frequency[np.argmax(beyond <= bearable)]
    count = math.ceil(2 * length * enough) + 2
    resolved = enough < SEEN * frequency[-1]
    points = f"{count} points would do" if resolved else f"{count} are too few"
    warnings.warn(
        f"The source has a frequency of {peak:.4g} cycles per unit of `{axis}`, but "
        f"`Problem(shape=...)` with {num} points resolves frequencies only up "
        f"to {nyquist:.4g} (Nyquist). A lower, false frequency therefore fits the "
        f"equation at every grid point as well. Along `{axis}`, {points}.",
        AliasWarning,
        skip_file_prefixes=INSIDE,
    )
