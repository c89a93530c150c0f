"""Pictures of many small data sets: what they share, and a new one."""

from typing import Any

import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.fits.predict import predict, recover
from probkit.fits.value import SAMPLE, Fit
from probkit.models.meta import Linear, New
from probkit.models.meta.episodes import Episodes
from probkit.plots import style
from probkit.plots.regression import resampled

# Letters of a name beside a row. Longer ones leave no room for the picture.
LONGEST = 26


def shrinkage(
    fitted: Fit,
    ax: Any = None,
    *,
    key: PRNGKeyArray,
    term: str | None = None,
    prob: float = 0.9,
):
    """One coefficient of each data set: by itself, of all rows as one, and of the fit.

    Args:
        fitted: a fit of `meta.Linear`.
        ax: Matplotlib axes to draw into; by default those of a new figure, taller for more
            data sets.
        key: a JAX random key, for the draws of the coefficients.
        term: name of the coefficient, such as `intercept`; by default the first.
        prob: probability of the intervals of the fit, in (0, 1). Their ends are quantiles.

    Returns:
        The axes, with one row per data set, in the order of the estimates of the fit, and
        the coefficient in units of the data. Long names are cut in the middle. A dot is the
        posterior median and its line the interval. A circle is the least-squares estimate
        of that data set alone, which a data set has if its rows determine all coefficients;
        an arrowhead at the edge is one outside. The vertical line is the least-squares
        estimate of all rows as one.

    Raises:
        ValueError: for another model, an unknown term, or if `prob` is not in (0, 1).
    """
    _refuse_other(fitted, "shrinkage")
    style.refuse_not_probability(prob, "shrinkage")
    found = recover(fitted, key=key)["coefficient"]
    terms = [str(name) for name in found["term"].values]
    term = terms[0] if term is None else term
    if term not in terms:
        raise ValueError(
            f"`plots.shrinkage(term={term!r})`: the coefficients are {', '.join(terms)}."
        )
    model: Any = fitted.model
    own, pooled = least_squares(model, fitted.data)
    own, pooled = own[:, terms.index(term)], pooled[terms.index(term)]
    each = found.sel(term=term)
    low, high = style.interval(each, prob)
    middle = each.median(SAMPLE).values
    order = np.argsort(middle)
    if ax is None:
        import matplotlib.pyplot as plt

        size = (6.4, min(12.0, 1.4 + 0.18 * len(order)))
        ax = plt.subplots(figsize=size, layout="constrained")[1]
    at = np.arange(len(order))
    label = f"fit, {prob:.0%}"
    ax.hlines(at, low[order], high[order], color=style.COLOURS[0], lw=1.4, alpha=0.6)
    ax.plot(middle[order], at, "o", color=style.COLOURS[0], ms=4, label=label)
    ax.axvline(pooled, color=style.GREY, lw=1.0, ls="--", label="pooled", zorder=0)
    _draw_own(ax, own[order], at, (min(low.min(), pooled), max(high.max(), pooled)))
    label_rows(ax, [str(name) for name in found["group"].values[order]])
    ax.set_xlabel(term)
    return style.finish(ax, legend=True)


def least_squares(model: Linear, data: Episodes) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients of each data set by itself, and of all rows as one, by least squares.

    Args:
        model: whose features they multiply.
        data: `n` data sets.

    Returns:
        `(n, p)`, NaN for a data set whose rows do not determine them, and `(p,)`, in units
        of the data.
    """
    rows = model.rows(data)
    X, y, seen = (np.asarray(a, float) for a in (rows.design, rows.y, rows.seen))
    p = X.shape[-1]
    own = np.full((len(X), p), np.nan)
    for i in range(len(X)):
        there = seen[i] > 0
        if np.linalg.matrix_rank(X[i, there]) == p:
            own[i] = np.linalg.lstsq(X[i, there], y[i, there])[0]
    pooled = np.linalg.lstsq(X.reshape(-1, p), y.reshape(-1))[0]
    T, t = (np.asarray(a) for a in model.to_units(data))
    return own @ T.T + t, T @ pooled + t


def _draw_own(ax, own: np.ndarray, at: np.ndarray, ends: tuple[float, float]) -> None:
    """Circles within twice the range of the fit, and arrowheads at its edges."""
    margin = (ends[1] - ends[0]) / 2
    low, high = ends[0] - margin, ends[1] + margin
    inside = (own >= low) & (own <= high)
    ring = {"color": style.INK, "mfc": "white", "ms": 4.5, "mew": 0.8, "zorder": 1}
    ax.plot(own[inside], at[inside], "o", label="alone", **ring)
    for mark, edge, beyond in (("<", low, own < low), (">", high, own > high)):
        ax.plot(np.full(beyond.sum(), edge), at[beyond], mark, **ring)
    known = np.r_[own[inside], ends]
    pad = 0.04 * np.ptp(known)
    left = low if (own < low).any() else known.min()
    right = high if (own > high).any() else known.max()
    ax.set_xlim(left - pad, right + pad)


def label_rows(ax, names: list[str]) -> None:
    """As many names as there is room for."""
    box = ax.get_position()
    height = ax.figure.get_size_inches()[1] * box.height
    step = max(1, int(np.ceil(len(names) * 0.13 / height)))
    shown = [_shortened(name) for name in names[::step]]
    ax.set_yticks(np.arange(0, len(names), step), shown, fontsize="small")
    ax.set_ylim(-0.8, len(names) - 0.2)


def _shortened(name: str) -> str:
    """Both ends of a long name, because names often differ in the last word only."""
    if len(name) <= LONGEST:
        return name
    tail = LONGEST // 2 - 1
    return f"{name[: LONGEST - tail - 1].rstrip()}\N{HORIZONTAL ELLIPSIS}{name[-tail:]}"


def arriving(
    fitted: Fit,
    x: Any,
    y: Any,
    ax: Any = None,
    *,
    key: PRNGKeyArray,
    counts: Any = (0, 1, 3, 10),
    prob: float = 0.9,
    num: int = 100,
):
    """The band of a new data set, before its first point and as more of them are known.

    Args:
        fitted: a fit of a model of `meta` with one input and values of a line, such as
            `meta.Linear`.
        x: inputs of the new data set, `(m,)`, in the order in which they arrive.
        y: its values, `(m,)`.
        ax: Matplotlib axes to draw into, one per count; by default those of a new figure.
        key: a JAX random key, for the predictive draws.
        counts: how many points are known in each panel.
        prob: probability of the predictive interval of a new value, in (0, 1).
        num: number of inputs at which band and mean are computed, 2 or more.

    Returns:
        The axes, one per count, over the same range. Known points are filled. A new figure
        has a legend below them.

    Raises:
        ValueError: for a fit of another kind, other shapes, counts beyond the number of
            points, `num` below 2, or if `prob` is not in (0, 1).
    """
    style.refuse_not_probability(prob, "arriving")
    if num < 2:
        raise ValueError(f"`plots.arriving(num={num})`: it must be at least 2.")
    x, y, counts = _points(fitted, x, y, counts)
    margin = 0.05 * (np.ptp(x) or 1.0)
    grid = np.linspace(x.min() - margin, x.max() + margin, num)
    known = np.arange(len(x)) < np.array(counts)[:, None]
    size = (len(counts), 1)
    new = New(
        np.tile(grid, size), np.tile(x, size), np.where(known, np.tile(y, size), np.nan)
    )
    found = predict(resampled(fitted), new, key=key)
    if "mean" not in found:
        raise ValueError(
            "`plots.arriving` draws values over one input; `predict` of "
            f"`{type(fitted.model).__name__}` has no `mean` here, but "
            f"{style.listed(found)}."
        )
    low, high = style.interval(found["y"], prob)
    mean = found["mean"].mean(SAMPLE).values
    panels = style.axes_array(
        ax, len(counts), "arriving", height=2.9, width=2.2, across=True
    )
    label = f"new y, {prob:.0%}"
    name_of_x = "x" if fitted.data.columns is None else fitted.data.columns[0]
    for i, panel in enumerate(panels):
        panel.fill_between(
            grid, low[i], high[i], color=style.PALE, alpha=0.45, lw=0, label=label
        )
        panel.plot(grid, mean[i], color=style.INK, lw=1.8, label="mean of y")
        points = {"ms": 4, "mec": style.INK, "mew": 0.7, "ls": ""}
        for there, fill, name in (
            (known[i], style.INK, "known"),
            (~known[i], "white", "to come"),
        ):
            panel.plot(x[there], y[there], "o", mfc=fill, label=name, **points)
        count = counts[i]
        panel.set_title(
            f"{count} point{'' if count == 1 else 's'} known",
            loc="left",
            fontsize="medium",
            color=style.INK,
        )
        panel.set_xlabel(name_of_x)
        panel.margins(x=0)
        style.finish(panel, legend=False)
    _share_range(panels, np.r_[low.ravel(), high.ravel(), y])
    if ax is None:
        style.legend_below(panels[0])
    return panels


def _points(fitted: Fit, x: Any, y: Any, counts: Any):
    data = fitted.data
    if not isinstance(data, Episodes) or data.x.shape[2:] != (1,):
        shape = data.x.shape[2:] if isinstance(data, Episodes) else "other ones"
        raise ValueError(
            "`plots.arriving` takes a fit of `meta` whose rows have one input; here are "
            f"{shape}."
        )
    x, y = np.asarray(x, float).squeeze(), np.asarray(y, float)
    if x.ndim != 1 or x.shape != y.shape or not len(x):
        raise ValueError(
            f"`plots.arriving(x=..., y=...)` got shapes {np.shape(x)} and {y.shape}; both "
            "are (m,), of at least one point."
        )
    counts = [int(count) for count in counts]
    if not counts or min(counts) < 0 or max(counts) > len(x):
        raise ValueError(
            f"`plots.arriving(counts={counts})`: there are {len(x)} points; give numbers "
            f"from 0 to {len(x)}."
        )
    return x, y, counts


def _share_range(panels, values: np.ndarray) -> None:
    low, high = np.nanmin(values), np.nanmax(values)
    for i, panel in enumerate(panels):
        panel.set_ylim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        if i:
            panel.tick_params(labelleft=False)
    panels[0].set_ylabel("y")
    # The exponent of large values goes beside the title, and not below it.
    panels[0].yaxis.get_offset_text().set(x=-0.02, ha="right")


def _refuse_other(fitted: Fit, caller: str) -> None:
    if not isinstance(fitted.model, Linear):
        raise ValueError(
            f"`plots.{caller}` draws a fit of `meta.Linear`, and this is one of "
            f"`{type(fitted.model).__name__}`."
        )
