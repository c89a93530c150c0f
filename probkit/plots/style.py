"""What all pictures share: axes, colours, names, legends."""

from typing import Any

import numpy as np

from probkit.fits.value import SAMPLE

# Paul Tol's "bright" scheme, told apart by colour-blind eyes too.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
INK, GREY, PALE = "#333333", "#777777", "#BBBBBB"


def axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6.4, 3.8), layout="constrained")[1]


def axes_array(ax, count: int, caller: str, *, height: float, width: float):
    if ax is None:
        import matplotlib.pyplot as plt

        size = (width, 0.6 + height * count)
        return plt.subplots(count, 1, figsize=size, layout="constrained", squeeze=False)[1][
            :, 0
        ]
    axes = np.atleast_1d(np.asarray(ax, dtype=object)).ravel()
    if len(axes) != count:
        raise ValueError(
            f"`plots.{caller}(ax=...)` got {len(axes)} axes; this fit takes {count}: "
            f"`plt.subplots({count}, 1)[1]`."
        )
    return axes


def colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib.pyplot as plt

    return list(plt.get_cmap("viridis")(np.linspace(0, 0.95, count)))


def entries(array, axis: str) -> list[str]:
    return [f"{axis} {label}" for label in array[axis].values]


def interval(array, prob: float):
    ends = [(1 - prob) / 2, (1 + prob) / 2]
    return array.quantile(ends, SAMPLE).transpose("quantile", ...).values


def refuse_not_probability(prob: float, caller: str) -> None:
    if not 0 < prob < 1:
        raise ValueError(
            f"`plots.{caller}(prob={prob})` is a probability; it must lie between 0 and "
            "1, such as 0.9."
        )


def listed(variables) -> str:
    return ", ".join(f"`{name}`" for name in variables) or "nothing"


def finish(ax, *, legend: bool):
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(PALE)
    ax.tick_params(color=PALE, labelcolor=GREY)
    if legend and ax.get_legend_handles_labels()[0]:
        add_legend(ax)
    return ax


def add_legend(ax, title: str | None = None) -> None:
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
