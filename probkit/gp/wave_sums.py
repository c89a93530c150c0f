"""Sums of waves of even frequencies over scattered points, by Fourier transforms."""

import numpy as np
from jaxtyping import Complex, Float

# Half the width, in cells, over which a point is spread: the error is some 1e-9 of the sum
# of the absolute values. Cells per shortest wave, relative to the fewest that there can be.
HALF, FINER = 9, 2


def wave_sums(
    x: Float[np.ndarray, " n"],
    columns: Float[np.ndarray, "n c"],
    count: int,
    step: float,
) -> Complex[np.ndarray, "c count"]:
    r"""$\sum_j c_j e^{2π i k s x_j}$ for $k = 0, …, count - 1$, in $O(n + m \log m)$.

    The cost is per column, for $m$ frequencies.

    Args:
        x: places, in any unit.
        columns: $c$, in one column or more.
        count: the number of frequencies.
        step: $s$, of the frequencies, in cycles per unit of `x`.

    Source: Greengard & Lee (2004), "Accelerating the nonuniform fast Fourier transform".
    """
    cells = FINER * 2 * count
    width = np.pi * HALF / (4 * count**2 * FINER * (FINER - 0.5))
    turns = (step * x) % 1.0
    first = np.floor(turns * cells).astype(int)
    total = np.zeros((columns.shape[1], cells))
    for shift in range(1 - HALF, HALF + 1):
        away = 2 * np.pi * (turns - (first + shift) / cells)
        bell = np.exp(-(away**2) / (4 * width))
        cell = (first + shift) % cells
        for row, column in zip(total, columns.T, strict=True):
            row += np.bincount(cell, bell * column, cells)
    k = np.arange(count)
    # The sums are those of the spread points, divided by the transform of the bell.
    spread = np.fft.rfft(total)[:, :count].conj()
    return spread * (np.sqrt(np.pi / width) * np.exp(k**2 * width) / cells)
