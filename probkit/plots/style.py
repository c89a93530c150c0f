"""What all pictures share: axes, colours, names, intervals, legends."""

from typing import Any

import numpy as np

from probkit.fits.value import SAMPLE

# Paul Tol's "bright" scheme, which colour-blind readers can distinguish.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
INK, GREY, PALE = "#333333", "#777777", "#BBBBBB"


def axes(ax):
    """`ax`, or the axes of a new figure if it is None."""
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6.4, 3.8), layout="constrained")[1]


def axes_array(
    ax, count: int, caller: str, *, height: float, width: float, across: bool = False
):
    """`ax` as an array of `count` axes, or those of a new figure if it is None.

    They are below each other, or beside each other with `across`. `height` and `width` are
    in inches: of one axes in that direction, and of all in the other.
    """
    if ax is None:
        import matplotlib.pyplot as plt

        if across:
            size = (0.6 + width * count, height)
            return plt.subplots(
                1, count, figsize=size, layout="constrained", squeeze=False
            )[1][0]
        size = (width, 0.6 + height * count)
        return plt.subplots(count, 1, figsize=size, layout="constrained", squeeze=False)[1][
            :, 0
        ]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != count:
        raise ValueError(
            f"`plots.{caller}(ax=...)` got {len(axes)} axes; this fit needs {count}: "
            f"`plt.subplots({f'1, {count}' if across else f'{count}, 1'})[1]`."
        )
    return axes


def colours(count: int) -> list[Any]:
    """One colour per label; beyond six labels, shades of one colour map."""
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib.pyplot as plt

    return list(plt.get_cmap("viridis")(np.linspace(0, 0.95, count)))


def entries(array, axis: str) -> list[str]:
    """Names of the entries along an axis, such as `expert 0`."""
    return [f"{axis} {label}" for label in array[axis].values]


def interval(array, prob: float):
    """Ends of the interval of probability `prob`, by quantiles over chains and draws."""
    ends = [(1 - prob) / 2, (1 + prob) / 2]
    return array.quantile(ends, SAMPLE).transpose("quantile", ...).values


def refuse_not_probability(prob: float, caller: str) -> None:
    if not 0 < prob < 1:
        raise ValueError(
            f"`plots.{caller}(prob={prob})` is a probability; it must lie between 0 and "
            "1, such as 0.9."
        )


def listed(variables) -> str:
    """Names in backticks, for a message."""
    return ", ".join(f"`{name}`" for name in variables) or "nothing"


def finish(ax, *, legend: bool):
    """Quiet spines and ticks, and a legend if there is something to name."""
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(PALE)
    ax.tick_params(color=PALE, labelcolor=GREY)
    if legend and ax.get_legend_handles_labels()[0]:
        add_legend(ax)
    return ax


def add_legend(ax, title: str | None = None) -> None:
    """A legend above the axes, on the right; `title` goes to the left."""
    handles, names = ax.get_legend_handles_labels()
    legend = ax.legend(
        handles,
        names,
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=min(len(handles), 6),
        frameon=False,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.4,
        borderaxespad=0.2,
        fontsize="small",
    )
    for handle in legend.legend_handles:
        if hasattr(handle, "set_linestyle") and not hasattr(handle, "set_sizes"):
            handle.set_linewidth(2.0)
    if title:
        ax.set_title(title, loc="left", fontsize="medium", color=INK)


def legend_below(ax) -> None:
    """One legend for all axes of a figure, with the names in `ax`."""
    ax.figure.legend(
        *ax.get_legend_handles_labels(),
        loc="outside lower center",
        ncols=2 if ax.figure.get_figwidth() < 4 else 6,
        frameon=False,
        labelcolor=INK,
        handlelength=1.4,
        columnspacing=1.4,
        fontsize="small",
    )
