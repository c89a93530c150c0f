"""Pictures of predicted classes."""

from typing import Any

import numpy as np

from probkit.models.meta import reliability as binned
from probkit.plots import style


def reliability(probability: Any, y: Any, ax: Any = None, *, num_bins: int = 15):
    """How often predicted classes are right, over their probability.

    Probabilities are calibrated if all points lie on the diagonal: of the queries whose
    most probable class has a probability of 0.8, eight in ten are of that class.

    Args:
        probability: of each class, `(..., n)`, such as the mean over draws of
            `probability` from `pk.predict`.
        y: the class of each query, `(...)`, whole numbers from 0.
        ax: Matplotlib axes to draw into; by default those of a new figure.
        num_bins: the number of bins of equal width.

    Returns:
        The axes: a point per bin that has queries, with an area that grows with their
        number, and the expected calibration error in the title.

    Raises:
        ValueError: for probabilities that do not sum to one, other shapes, and values that
            are no classes.
    """
    found = binned(probability, y, num_bins=num_bins)
    full = found.num > 0
    ax = style.axes(ax)
    ax.plot([0, 1], [0, 1], color=style.PALE, lw=1.2, zorder=1)
    x, height = found.confidence[full], found.accuracy[full]
    ax.plot(x, height, color=style.COLOURS[0], lw=1.2, zorder=2)
    share = found.num[full] / found.num.max()
    # A large point at a probability of one lies half outside.
    size = 20 + 120 * share
    ax.scatter(x, height, s=size, color=style.COLOURS[0], zorder=3, clip_on=False)
    ticks = np.linspace(0, 1, 6)
    ax.set(xlim=(0, 1.02), ylim=(0, 1.02), aspect="equal", xticks=ticks, yticks=ticks)
    ax.set_xlabel("probability of the most probable class")
    ax.set_ylabel("how often it is right")
    title = f"calibration error {found.error:.3f}"
    ax.set_title(title, loc="left", fontsize="medium", color=style.INK)
    return style.finish(ax, legend=False)
