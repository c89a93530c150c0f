"""Frequencies of a source that a grid takes for lower ones."""

import math
import warnings
from collections.abc import Sequence
from pathlib import Path

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from probkit.models.pde.spectrum import power

# A thousandth of the amplitude: what is above Nyquist comes back as a lower frequency,
# which the inverse of the equation enlarges. Less could be a nonlinear term's, such as the
# 1e-9 of u^3 in the Allen-Cahn examples, whose aliases in u and in the source are the same.
ALIASED_POWER = 1e-6
# Of a source that varies by less than rounding, nothing can be said.
ROUNDING_POWER = 1e-20
# Up to which share of its own Nyquist frequency the fine grid is believed.
SEEN = 0.9
# A warning is for the line of the user's that made the problem.
_INSIDE = (str(Path(__file__).parents[2]), str(Path(eqx.__file__).parent))


class AliasWarning(UserWarning):
    """The grid is too coarse for the source: frequencies above Nyquist fold to lower ones.

    The residual does not tell: it is zero at every grid point for the false frequency.
    """


def warn_of_aliases(
    source: Float[Array, "..."],
    axes: Sequence[str],
    shape: Sequence[int],
    length: Sequence[float],
    nyquist: Sequence[float],
) -> None:
    """Warn of each axis along which the source is too fast for the grid.

    Args:
        source: on the fine grid, or a number.
        axes: their names.
        shape: how many points the grid has along each.
        length: of each axis.
        nyquist: the highest frequency that the grid can tell, along each.
    """
    values = np.asarray(source)
    if values.ndim == 0:
        return
    for i, axis in enumerate(axes):
        lines = np.moveaxis(values, i, -1).reshape(-1, values.shape[i])
        frequency, level = power(lines, length[i])
        bearable = ALIASED_POWER * level.sum()
        rounding = ROUNDING_POWER * np.sum(lines**2) / lines.shape[-1]
        if level[frequency > nyquist[i]].sum() <= max(bearable, rounding):
            continue
        peak = frequency[np.argmax(np.where(frequency > nyquist[i], level, 0.0))]
        # The lowest frequency with no more than the bearable share above it.
        beyond = np.flip(np.cumsum(np.flip(level))) - level
        enough = frequency[np.argmax(beyond <= bearable)]
        count = math.ceil(2 * length[i] * enough) + 2
        resolved = enough < SEEN * frequency[-1]
        points = f"{count} points would do" if resolved else f"{count} are too few"
        warnings.warn(
            f"The source has a frequency of {peak:.4g} cycles per unit of `{axis}`, but "
            f"`Problem(shape=...)` with {shape[i]} points tells frequencies only up to "
            f"{nyquist[i]:.4g} (Nyquist): a lower, false frequency fits the equation at "
            f"every grid point as well. Along `{axis}`, {points}.",
            AliasWarning,
            skip_file_prefixes=_INSIDE,
        )
