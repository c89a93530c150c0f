"""Pictures of a factorised surface: the curves of its modes, and slices of it."""

from typing import Any

import numpy as np

from probkit.fits.value import SAMPLE
from probkit.plots import style

KINDS = ("factor", "effect")


def factors(curves: Any, ax: Any = None, *, prob: float = 0.9):
    """The curves of each mode, with intervals: factors, and main effects.

    Args:
        curves: what `pk.recover` returns for a model of `tucker`: an xarray `Dataset` with
            draws of `factor_<mode>`, one curve per component, and `effect_<mode>`.
        ax: Matplotlib axes to draw into, one per variable; by default those of a new
            figure.
        prob: probability of the pointwise intervals, in (0, 1). Their ends are quantiles.

    Returns:
        The axes, one per variable, in the order of the data set. A mode of labels has one
        dot per label.

    Raises:
        ValueError: if there is no such variable, a variable has other axes than its draws,
            its mode and its components, or `prob` is not in (0, 1).
    """
    style.refuse_not_probability(prob, "factors")
    names = [name for name in getattr(curves, "data_vars", ()) if _kind(name) in KINDS]
    if not names:
        raise ValueError(
            "`plots.factors` draws `factor_<mode>` and `effect_<mode>` of a data set, such "
            "as that of `pk.recover`; here is neither of them."
        )
    panels = style.axes_array(ax, len(names), "factors", height=2.0, width=6.4)
    for panel, name in zip(panels, names, strict=True):
        curve = curves[name]
        mode = str(name).partition("_")[2]
        others = [d for d in curve.dims if d not in (*SAMPLE, mode)]
        if mode not in curve.dims or len(others) > 1:
            found = ", ".join(map(str, curve.dims))
            raise ValueError(
                f"`plots.factors`: `{name}` has the axes {found}; it takes chain, draw, "
                f"`{mode}`, and one more for components."
            )
        _draw(panel, curve, mode, others[0] if others else None, prob)
        panel.set_xlabel(mode)
        panel.set_ylabel(str(name).partition("_")[0])
        style.finish(panel, legend=bool(others))
    return panels


def _kind(name: Any) -> str:
    return str(name).partition("_")[0]


def _draw(panel, curve, mode: str, axis: str | None, prob: float) -> None:
    parts = [curve.isel({axis: i}) for i in range(curve.sizes[axis])] if axis else [curve]
    names = style.entries(curve, axis) if axis and axis in curve.coords else [""]
    if axis and len(names) < len(parts):
        names = [f"{axis} {i}" for i in range(len(parts))]
    x = curve[mode].values if mode in curve.coords else np.arange(curve.sizes[mode])
    colours = style.colours(len(parts)) if axis else [style.INK]
    has_order = x.dtype.kind not in "OUS"
    for i, (part, name, colour) in enumerate(zip(parts, names, colours, strict=True)):
        low, high = style.interval(part, prob)
        mean = part.mean(SAMPLE).values
        if has_order:
            panel.fill_between(x, low, high, color=colour, alpha=0.25, lw=0)
            panel.plot(x, mean, color=colour, lw=1.6, label=name)
        else:  # beside each other, because labels have no place between them
            at = np.arange(len(x)) + 0.6 * ((i + 0.5) / len(parts) - 0.5)
            panel.vlines(at, low, high, color=colour, alpha=0.5)
            panel.plot(at, mean, "o", color=colour, ms=4, label=name)
    if not has_order:
        panel.set_xticks(np.arange(len(x)), x, rotation=30, ha="right")
    else:
        panel.margins(x=0)
        _format_dates(panel.xaxis, x)


def surface(values: Any, ax: Any = None, *, x: str | None = None, sd: Any = None):
    """A surface over two modes, in colour, with lines of equal sd.

    Args:
        values: an xarray `DataArray` over two modes, such as `Queries.labelled` makes of
            the answers on a `tucker.grid`. Chains and draws are averaged.
        ax: Matplotlib axes to draw into; by default those of a new figure.
        x: the mode of the horizontal axis; by default the first.
        sd: the sd of the surface, over the same two modes. By default that of the draws, if
            there are several.

    Returns:
        The axes. Their `collections` begin with the coloured mesh.

    Raises:
        ValueError: if `values` is not over two modes, or has no such mode.
    """
    dims = [d for d in getattr(values, "dims", ()) if d not in SAMPLE]
    if len(dims) != 2:
        found = ", ".join(map(str, dims)) or "none"
        raise ValueError(
            f"`plots.surface` draws an xarray array over two modes, and here are {found}; "
            "hold the others at one value, such as `tucker.grid(data, day=0.0)`."
        )
    if x is not None and x not in dims:
        raise ValueError(
            f"`plots.surface(x={x!r})`: the modes are {dims[0]} and {dims[1]}."
        )
    across = dims[0] if x is None else x
    up = dims[1] if across == dims[0] else dims[0]
    draws = [d for d in SAMPLE if d in values.dims]
    if sd is None and draws and np.prod([values.sizes[d] for d in draws]) > 1:
        sd = values.std(draws)
    mean = (values.mean(draws) if draws else values).transpose(up, across)
    ax = style.axes(ax)
    places = [_places(mean, one) for one in (across, up)]
    mesh = ax.pcolormesh(*places, mean.values, cmap="viridis", shading="nearest")
    ax.figure.colorbar(mesh, ax=ax, label=str(values.name or ""))
    if sd is not None and min(mean.shape) > 1:
        level = sd.transpose(up, across).values
        if np.ptp(level) > 0:
            lines = ax.contour(*places, level, colors="white", linewidths=0.8)
            ax.clabel(lines, fontsize="x-small", fmt=lambda v: f"sd {v:.2g}")
    for one, axis in ((across, ax.xaxis), (up, ax.yaxis)):
        if mean[one].dtype.kind in "OUS":
            axis.set_ticks(np.arange(mean.sizes[one]), mean[one].values)
        _format_dates(axis, mean[one].values)
    ax.set_xlabel(across)
    ax.set_ylabel(up)
    return style.finish(ax, legend=False)


def _format_dates(axis, values) -> None:
    """Short labels for dates, which would otherwise overlap."""
    if values.dtype.kind == "M":
        from matplotlib.dates import AutoDateLocator, ConciseDateFormatter

        locator = AutoDateLocator(maxticks=7)
        axis.set_major_locator(locator)
        axis.set_major_formatter(ConciseDateFormatter(locator))


def _places(array, axis: str):
    text = array[axis].dtype.kind in "OUS"
    return np.arange(array.sizes[axis]) if text else array[axis].values
