"""Pictures of any fit: the posterior, and the progress of the run."""

import math
from typing import Any

import numpy as np

from probkit.fits.value import SAMPLE, Fit
from probkit.plots import style

MAX_ROWS = 40


def posterior(
    fitted: Fit,
    var_names: str | list[str] | None = None,
    *,
    ax: Any = None,
    prob: float = 0.9,
):
    """The posterior density of each parameter: one row per parameter, one colour per label.

    Args:
        fitted: any fit.
        var_names: the variables of `fit.posterior` to draw; by default all. An array has
            one row per entry, except along the axis of a mixture's labels.
        ax: Matplotlib axes to draw into, one per row; by default those of a new figure.
        prob: probability of the interval that is drawn below each density, in (0, 1). Its
            ends are quantiles of the draws; the dot is their mean.

    Returns:
        An array of axes, one per row, from top to bottom. The horizontal axis is in the
        units of the parameter. Each density is scaled to a maximum of 1. Where all draws
        are equal, as in a fit with a single draw, a vertical line replaces the density.

    Raises:
        ValueError: if the posterior has no such variable, there would be more than 40
            rows, `ax` has the wrong number of axes, or `prob` is not in (0, 1).
    """
    style.refuse_not_probability(prob, "posterior")
    rows = _rows(fitted, var_names)
    draws, axis = fitted.posterior, fitted.model.interchangeable
    # Room for the interval of each entry, below the densities.
    height = 0.9 + 0.08 * draws.sizes.get(axis, 1)
    axes = style.axes_array(ax, len(rows), "posterior", height=height, width=6.4)
    for (name, at), one in zip(rows, axes, strict=True):
        array = draws[name].sel(at)
        for place, (entry, colour, label) in enumerate(_entries(array, axis)):
            _density(one, entry.values.ravel(), colour, prob, place, label)
        _row_style(one, _row_name(name, at))
    labelled = [one for one in axes if one.get_legend_handles_labels()[0]]
    if labelled:
        style.add_legend(labelled[0])
    return axes


def _entries(array, axis: str | None) -> list[tuple[Any, Any, str | None]]:
    """The entries along the axis of labels, each with its colour and its name."""
    if axis is None or axis not in array.dims:
        return [(array, style.GREY, None)]
    entries = [array.isel({axis: k}) for k in range(array.sizes[axis])]
    colours, names = style.colours(len(entries)), style.entries(array, axis)
    return list(zip(entries, colours, names, strict=True))


def _rows(fitted: Fit, var_names) -> list[tuple[str, dict[str, Any]]]:
    """One variable and one index per row; chains, draws and labels share a row."""
    draws = fitted.posterior
    apart = (*SAMPLE, fitted.model.interchangeable)
    names = [var_names] if isinstance(var_names, str) else var_names
    names = list(draws.data_vars) if names is None else list(names)
    for name in names:
        if name not in draws:
            raise ValueError(
                f"`plots.posterior(var_names=...)`: the fit has no `{name}`; it has "
                f"{style.listed(draws.data_vars)}."
            )
    rows: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        axes = [dim for dim in draws[name].dims if dim not in apart]
        shape = [draws.sizes[dim] for dim in axes]
        if len(rows) + math.prod(shape) > MAX_ROWS:
            raise ValueError(
                f"`plots.posterior` draws one row per entry and at most {MAX_ROWS} rows, "
                f"but the variables up to `{name}` have "
                f"{len(rows) + math.prod(shape)}; choose fewer with `var_names=`. The fit "
                f"has {style.listed(draws.data_vars)}."
            )
        for index in np.ndindex(*shape):
            place = zip(axes, index, strict=True)
            rows.append((name, {dim: draws[dim].values[i] for dim, i in place}))
    return rows


def _row_name(name: str, at: dict[str, Any]) -> str:
    return f"{name}\n{', '.join(str(label) for label in at.values())}" if at else name


def _density(ax, values, colour, prob: float, place: int, label) -> None:
    from arviz_stats.base import array_stats

    values = values[np.isfinite(values)]
    if values.size == 0:  # a failed run may leave such draws
        return
    if np.ptp(values) == 0:
        ax.axvline(values[0], color=colour, lw=1.8, label=label)
        return
    grid, density, _ = array_stats.kde(values)
    # All have the same height, because location and width are what a reader compares.
    density = density / density.max()
    ax.fill_between(grid, density, color=colour, alpha=0.25, lw=0)
    ax.plot(grid, density, color=colour, lw=1.4, label=label)
    below = -0.14 - 0.13 * place
    ends = np.quantile(values, [(1 - prob) / 2, (1 + prob) / 2])
    ax.plot(ends, [below, below], color=colour, lw=2.2, solid_capstyle="round")
    ax.plot(values.mean(), below, "o", color=colour, ms=4.5, mec="white", mew=0.7)


def _row_style(ax, name: str) -> None:
    ax.set_yticks([])
    ax.spines["left"].set_visible(False)
    ax.set_ylabel(
        name, rotation=0, ha="right", va="center", multialignment="right", color=style.INK
    )
    ax.margins(x=0.02, y=0.08)
    style.finish(ax, legend=False)


# The run.


def objective(fitted: Fit, ax: Any = None):
    """The progress of the run: objective of EM, loss of SVI, or log density of NUTS.

    Args:
        fitted: a fit by EM, SVI or NUTS, or by a method that keeps the same statistics.
        ax: Matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes, in nats. EM: objective per step, one line per restart, the best restart
        in colour. SVI: smoothed loss per step, one line per start, the best start in
        colour. NUTS: log density per draw, one line per chain.

    Raises:
        ValueError: if the fit has neither a trace nor the log density of its draws.
    """
    tree = fitted.tree
    trace = tree["trace"].to_dataset() if "trace" in tree else {}
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree else {}
    if "objective" in trace:
        return _em_objective(style.axes(ax), trace)
    if "loss" in trace:
        return _svi_loss(style.axes(ax), trace)
    if "lp" in stats:
        return _log_density(style.axes(ax), stats["lp"])
    raise ValueError(
        "`plots.objective` draws `objective` or `loss` of the group `trace`, or `lp` of "
        "the group `sample_stats`; this fit has none of them."
    )


def _em_objective(ax, trace):
    objective, best = trace["objective"].values, trace["best"].values
    for i in np.argsort(best):
        last = int(np.isfinite(objective[i]).sum())
        look = _lane_style(bool(best[i]), "the best restart")
        ax.plot(np.arange(1, last + 1), objective[i, :last], **look)
        ax.plot(last, objective[i, last - 1], "o", ms=3.5, **{**look, "label": None})
    # The first steps start far below. With them, differences at the end would be invisible.
    ends = trace["final_objective"].values
    ends = ends[np.isfinite(ends)]
    top, low = ends.max(), min(ends.min(), np.nanmedian(objective))
    gap = max(top - low, 1e-3 * abs(top))
    ax.set_ylim(top - 1.3 * gap, top + 0.08 * gap)
    ax.set_xlabel("step")
    ax.set_ylabel("objective (nats)")
    _add_count(ax, len(best), "restart")
    return style.finish(ax, legend=True)


def _svi_loss(ax, trace):
    loss, best = trace["loss"].values, trace["best"].values
    width = max(1, loss.shape[1] // 100)
    words = f"mean of {width} steps" + (", the best start" if len(best) > 1 else "")
    shown = []
    for i in np.argsort(best):
        own = loss[i][np.isfinite(loss[i])]
        if own.size < width:
            continue
        smooth = np.convolve(own, np.ones(width) / width, mode="valid")
        steps = np.arange(width, own.size + 1)
        if best[i]:
            ax.plot(
                np.arange(1, own.size + 1), own, color=style.COLOURS[0], alpha=0.2, lw=0.5
            )
        ax.plot(steps, smooth, **_lane_style(bool(best[i]), words))
        shown.append(own)
    every = np.concatenate(shown) if shown else np.zeros(1)
    low, high = np.quantile(every, [0.001, 0.98])
    margin = 0.1 * max(high - low, 1e-3 * abs(high))
    ax.set_ylim(low - margin, high + margin)
    ax.set_xlabel("step")
    ax.set_ylabel("loss: minus the ELBO (nats)")
    _add_count(ax, len(best), "start")
    return style.finish(ax, legend=True)


def _log_density(ax, lp):
    import matplotlib.pyplot as plt

    values = lp.transpose("chain", "draw").values
    # Shades of one colour map, because the other colours stand for labels.
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(values)))
    for chain, (own, shade) in enumerate(zip(values, shades, strict=True)):
        ax.plot(own, color=shade, lw=0.6, alpha=0.85, label=f"chain {chain}")
    ax.set_xlabel("draw")
    ax.set_ylabel("log density (nats)")
    ax.margins(x=0.01)
    return style.finish(ax, legend=True)


def _lane_style(best: bool, label: str) -> dict[str, Any]:
    if best:
        return {"color": style.COLOURS[0], "lw": 2.0, "zorder": 3, "label": label}
    return {"color": style.PALE, "lw": 0.9}


def _add_count(ax, count: int, word: str) -> None:
    if count > 1:
        ax.plot([], [], color=style.PALE, label=f"the other {count - 1} {word}s")
