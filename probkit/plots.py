"""Pictures of a fit.

Every function takes a `Fit` first, draws into `ax` if it is given one, and returns the
axes. `posterior`, `labels` and `objective` serve any fit; `band` and `memberships` serve
regressions. An expert has one colour in all of them.
"""

import math
from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.fits.predict import predict
from probkit.fits.value import SAMPLE, Fit

__all__ = ["band", "labels", "memberships", "objective", "posterior"]

# The axis whose entries have a colour each.
EXPERT = "expert"
# Paul Tol's "bright" scheme, told apart by colour-blind eyes too.
COLOURS = ("#4477AA", "#EE6677", "#228833", "#CCBB44", "#66CCEE", "#AA3377")
INK, GREY, PALE = "#333333", "#777777", "#BBBBBB"
# Enough draws for a smooth band, few enough to compute in a moment, and whole batches of
# `predict`, which would compile anew for a remainder.
BAND_DRAWS = 4096
MOST_ROWS = 40


# Regressions: y over x.


def band(
    fitted: Fit,
    ax: Any = None,
    *,
    key: PRNGKeyArray,
    prob: float = 0.9,
    num: int = 200,
    input: str | None = None,
):
    """The data, the posterior mean of y, and where a new y would fall.

    Args:
        fitted: a fit of a regression: data with `x` and `y`, predictions with `y`.
        ax: Matplotlib axes to draw into; by default those of a new figure.
        key: a JAX random key, for the predictive draws.
        prob: how much of the predictive distribution the band holds, between its
            quantiles; in (0, 1).
        num: at how many inputs the band is computed.
        input: which input to vary; the others stay at their means. Needed for data with
            several inputs.

    Returns:
        The axes. The points of a mixture have the colours of their experts.

    Raises:
        ValueError: if the fit is no regression, or an argument does not fit.
    """
    x, y = _regression(fitted, "band")
    _refuse_not_a_share(prob, "band")
    column, grid = _along(x, input, num, "band")
    predicted = predict(_resampled(fitted), grid, key=key)
    if "y" not in predicted:
        raise ValueError(
            f"`plots.band`: `predict` of `{type(fitted.model).__name__}` has "
            f"{_listed(predicted)} but no `y` to make a band of."
        )
    at = grid[:, column]
    ends = _quantiles(predicted["y"], prob)
    centre = predicted.get("mean", predicted["y"]).mean(SAMPLE)
    ax = _axes(ax)
    ax.fill_between(at, *ends, color=PALE, alpha=0.45, lw=0, label=f"{prob:.0%} of new y")
    ax.plot(at, centre, color=INK, lw=1.8, label="mean of y")
    points = {"s": 18, "edgecolors": "white", "linewidths": 0.4, "zorder": 3}
    colours, experts = _point_colours(fitted)
    ax.scatter(x.values[:, column], y.values, c=colours, **points)
    for name, colour in experts.items():
        ax.scatter([], [], color=colour, label=name, **points)
    _label_input(ax, x, column)
    ax.set_ylabel("y")
    return _finished(ax, legend=True)


def memberships(
    fitted: Fit,
    ax: Any = None,
    *,
    prob: float = 0.9,
    num: int = 200,
    input: str | None = None,
):
    """Which expert is in force where: the probability of each along an input.

    Args:
        fitted: a fit of a mixture of experts: data with `x` and `y`, predictions with
            `membership`.
        ax: Matplotlib axes to draw into; by default those of a new figure.
        prob: how much of the posterior of each probability its band holds; in (0, 1).
        num: at how many inputs the probabilities are computed.
        input: which input to vary; the others stay at their means. Needed for data with
            several inputs.

    Returns:
        The axes: posterior mean and band of each expert's probability.

    Raises:
        ValueError: if the fit is no mixture of experts, or an argument does not fit.
    """
    x, _ = _regression(fitted, "memberships")
    _refuse_not_a_share(prob, "memberships")
    column, grid = _along(x, input, num, "memberships")
    # Memberships are functions of a draw; the key moves only the y that come with them.
    predicted = predict(_resampled(fitted), grid, key=jax.random.key(0))
    if "membership" not in predicted:
        raise ValueError(
            f"`plots.memberships`: `predict` of `{type(fitted.model).__name__}` has "
            f"{_listed(predicted)} but no `membership`; it draws mixtures of experts, "
            "such as `moe.SoftmaxMoE`."
        )
    share, at = predicted["membership"], grid[:, column]
    ax = _axes(ax)
    names = _experts(share)
    for k, colour in enumerate(_colours(len(names))):
        own = share.isel({EXPERT: k})
        ax.fill_between(at, *_quantiles(own, prob), color=colour, alpha=0.25, lw=0)
        ax.plot(at, own.mean(SAMPLE), color=colour, lw=1.8, label=names[k])
    _label_input(ax, x, column)
    ax.set_ylabel("probability of the expert")
    ax.set_ylim(-0.02, 1.02)
    return _finished(ax, legend=True)


def _regression(fitted: Fit, caller: str):
    tree = fitted.tree
    x = tree["constant_data"].get("x") if "constant_data" in tree else None
    y = tree["observed_data"].get("y") if "observed_data" in tree else None
    if x is None or y is None or x.ndim != 2 or y.ndim != 1:
        raise ValueError(
            f"`plots.{caller}` draws y over x, for a fit whose data have inputs `x` of "
            "shape (n, d) and outputs `y` of shape (n,); the data of this "
            f"`{type(fitted.model).__name__}` have {_listed(_data_variables(tree))}. "
            "`plots.posterior` draws any fit."
        )
    return x, y


def _data_variables(tree) -> dict[str, Any]:
    groups = [tree[g] for g in ("constant_data", "observed_data") if g in tree]
    return {k: v for group in groups for k, v in group.data_vars.items()}


def _listed(variables) -> str:
    return ", ".join(f"`{name}`" for name in variables) or "nothing"


def _refuse_not_a_share(prob: float, caller: str) -> None:
    if not 0 < prob < 1:
        raise ValueError(
            f"`plots.{caller}(prob={prob})` is a probability; it must lie between 0 and "
            "1, such as 0.9."
        )


def _along(x, input: str | None, num: int, caller: str) -> tuple[int, np.ndarray]:
    """Which column varies, and a grid that leaves the others at their means."""
    if num < 2:
        raise ValueError(f"`plots.{caller}(num={num})`: it must be at least 2.")
    names = [str(name) for name in x[x.dims[1]].values]
    if input is None and len(names) > 1:
        raise ValueError(
            f"`plots.{caller}` draws along one input, and these data have {len(names)}; "
            f"choose one, `input={names[0]!r}`, of {', '.join(names)}."
        )
    if input is not None and input not in names:
        raise ValueError(
            f"`plots.{caller}(input={input!r})`: the inputs are {', '.join(names)}."
        )
    column = 0 if input is None else names.index(input)
    values = x.values
    grid = np.tile(values.mean(0), (num, 1))
    low, high = values[:, column].min(), values[:, column].max()
    margin = 0.02 * (high - low)
    grid[:, column] = np.linspace(low - margin, high + margin, num)
    return column, grid


def _resampled(fitted: Fit) -> Fit:
    """The same posterior in `BAND_DRAWS` draws, evenly picked or repeated.

    A point, or few draws, would make a ragged band: each draw predicts one new y.
    """
    import xarray as xr

    posterior = fitted.posterior
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    picked = np.linspace(0, chains * draws, BAND_DRAWS, endpoint=False).astype(int)
    chain = xr.DataArray(picked // draws, dims="pick")
    draw = xr.DataArray(picked % draws, dims="pick")
    flat = posterior.isel(chain=chain, draw=draw).drop_vars(SAMPLE)
    flat = flat.rename(pick="draw").expand_dims(chain=[0])
    return replace(fitted, tree=xr.DataTree.from_dict({"posterior": flat}))


def _quantiles(array, prob: float):
    ends = [(1 - prob) / 2, (1 + prob) / 2]
    return array.quantile(ends, SAMPLE).transpose("quantile", ...).values


def _point_colours(fitted: Fit):
    """Each observation mixed from the colours of the experts, and whose they are.

    The shares are those of the experts *given* y: what each explains of the observation.
    """
    import matplotlib.colors as mpl

    given = predict(_resampled(fitted), fitted.data, key=jax.random.key(0))
    if "membership" not in given:
        return GREY, {}
    share = given["membership"].mean(SAMPLE).transpose(..., EXPERT)
    colours = _colours(share.sizes[EXPERT])
    mixed = share.values @ np.array([mpl.to_rgb(colour) for colour in colours])
    return np.clip(mixed, 0, 1), dict(zip(_experts(share), colours, strict=True))


# The posterior, whatever its variables.


def posterior(
    fitted: Fit,
    var_names: str | list[str] | None = None,
    *,
    ax: Any = None,
    prob: float = 0.9,
):
    """The posterior density of each parameter, a row each, an expert a colour.

    Args:
        fitted: any fit.
        var_names: which variables of `fit.posterior`; by default all.
        ax: Matplotlib axes to draw into, one a row; by default those of a new figure.
        prob: how much of the posterior the bar below each density holds, between its
            quantiles; in (0, 1). The dot is the mean.

    Returns:
        An array of axes, one a row, from above. A fit without draws (`EM()` with
        `num_draws=0`) has lines where it has no densities.

    Raises:
        ValueError: if a variable is not there, or there are too many rows to read.
    """
    _refuse_not_a_share(prob, "posterior")
    rows = _rows(fitted, var_names)
    draws, coloured = fitted.posterior, False
    # Each expert's bar takes a little height of its own.
    height = 0.9 + 0.08 * draws.sizes.get(EXPERT, 1)
    axes = _axes_array(ax, len(rows), "posterior", height=height, width=6.4)
    for (name, at), one in zip(rows, axes, strict=True):
        array = draws[name].sel(at)
        lanes = [array.isel({EXPERT: k}) for k in range(array.sizes.get(EXPERT, 0))]
        coloured = coloured or bool(lanes)
        colours = _colours(len(lanes)) if lanes else [GREY]
        for place, (lane, colour) in enumerate(zip(lanes or [array], colours, strict=True)):
            label = _experts(array)[place] if lanes else None
            _density(one, lane.values.ravel(), colour, prob, place, label)
        _row_style(one, _row_name(name, at))
    if coloured:
        _legend(next(one for one in axes if one.get_legend_handles_labels()[0]))
    return axes


def _rows(fitted: Fit, var_names) -> list[tuple[str, dict[str, Any]]]:
    """A variable and the place along its axes, chain, draw and expert aside."""
    draws = fitted.posterior
    names = [var_names] if isinstance(var_names, str) else var_names
    names = list(draws.data_vars) if names is None else list(names)
    for name in names:
        if name not in draws:
            raise ValueError(
                f"`plots.posterior(var_names=...)`: there is no `{name}`; the fit has "
                f"{_listed(draws.data_vars)}."
            )
    rows: list[tuple[str, dict[str, Any]]] = []
    for name in names:
        axes = [dim for dim in draws[name].dims if dim not in (*SAMPLE, EXPERT)]
        shape = [draws.sizes[dim] for dim in axes]
        if len(rows) + math.prod(shape) > MOST_ROWS:
            raise ValueError(
                f"`plots.posterior` has a row for each entry, and up to `{name}` that "
                f"makes {len(rows) + math.prod(shape)}, of {MOST_ROWS} at most; choose "
                f"with `var_names=`. The fit has {_listed(draws.data_vars)}."
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
    if values.size == 0:  # a run that failed may leave such draws
        return
    if np.ptp(values) == 0:
        ax.axvline(values[0], color=colour, lw=1.8, label=label)
        return
    grid, density, _ = array_stats.kde(values)
    # Each to its own height: what is compared is where the draws lie, and how widely.
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
        name, rotation=0, ha="right", va="center", multialignment="right", color=INK
    )
    ax.margins(x=0.02, y=0.08)
    _finished(ax, legend=False)


def labels(fitted: Fit, var_name: str | None = None, *, ax: Any = None, **at: Any):
    """Traces of one parameter of every expert, a panel a chain: do labels stay?

    Where two colours trade places, in a chain or between chains, labels switched: then
    R-hat and means of labelled parameters say little, and `relabel=True` mends both.

    Args:
        fitted: a fit of a mixture.
        var_name: a variable with an axis `expert`; by default the first.
        ax: Matplotlib axes to draw into, one a chain; by default those of a new figure.
        **at: where along the variable's other axes, such as `term="time"`; by default
            the last entry of each.

    Returns:
        An array of axes, one a chain.

    Raises:
        ValueError: if the fit has no experts, or no such variable or place.
    """
    draws = fitted.posterior
    labelled = [name for name, array in draws.items() if EXPERT in array.dims]
    if not labelled:
        raise ValueError(
            f"`plots.labels` follows the labels of a mixture, and no variable of this "
            f"`{type(fitted.model).__name__}` has an axis `{EXPERT}`."
        )
    name = labelled[0] if var_name is None else var_name
    if name not in labelled:
        raise ValueError(
            f"`plots.labels(var_name={name!r})`: the variables with an axis `{EXPERT}` "
            f"are {', '.join(labelled)}."
        )
    array = draws[name]
    others = [dim for dim in array.dims if dim not in (*SAMPLE, EXPERT)]
    at = {dim: draws[dim].values[-1] for dim in others} | at
    _refuse_wrong_place(array, others, at)
    array = array.sel(at).transpose("chain", "draw", EXPERT)
    axes = _axes_array(ax, array.sizes["chain"], "labels", height=1.25, width=7.2)
    for chain, one in enumerate(axes):
        for k, colour in enumerate(_colours(array.sizes[EXPERT])):
            values = array.values[chain, :, k]
            one.plot(values, color=colour, lw=0.6, label=_experts(array)[k])
        one.set_ylabel(f"chain {chain}", color=INK)
        one.margins(x=0.01)
        _finished(one, legend=False)
        if one is not axes[-1]:
            one.tick_params(labelbottom=False)
    low = min(one.get_ylim()[0] for one in axes)
    high = max(one.get_ylim()[1] for one in axes)
    for one in axes:
        one.set_ylim(low, high)
    axes[-1].set_xlabel("draw")
    place = ", ".join(str(value) for value in at.values())
    _legend(axes[0], title=f"{name}[{place}]" if place else name)
    return axes


def _refuse_wrong_place(array, others: list[str], at: dict[str, Any]) -> None:
    for dim, value in at.items():
        if dim not in others:
            raise ValueError(
                f"`plots.labels({dim}=...)`: `{array.name}` has no axis `{dim}` to "
                f"choose along; it has {', '.join(others) or 'none'}."
            )
        if value not in array[dim].values:
            choices = ", ".join(repr(str(v)) for v in array[dim].values)
            raise ValueError(
                f"`plots.labels({dim}={value!r})`: along `{dim}` there are {choices}."
            )


# The run.


def objective(fitted: Fit, ax: Any = None):
    """How the run went: EM's climb, SVI's loss, or the log density along the chains.

    Args:
        fitted: any fit.
        ax: Matplotlib axes to draw into; by default those of a new figure.

    Returns:
        The axes. EM: the objective of every restart, the best in colour. SVI: the loss of
        every start, smoothed, the best in colour. NUTS: the log density of each chain.

    Raises:
        ValueError: if the fit kept no trace of its run.
    """
    tree = fitted.tree
    trace = tree["trace"].to_dataset() if "trace" in tree else {}
    stats = tree["sample_stats"].to_dataset() if "sample_stats" in tree else {}
    if "objective" in trace:
        return _climb(_axes(ax), trace)
    if "loss" in trace:
        return _descent(_axes(ax), trace)
    if "lp" in stats:
        return _chains(_axes(ax), stats["lp"])
    raise ValueError(
        "`plots.objective` draws the `objective` or `loss` of the group `trace`, or the "
        "`lp` of `sample_stats`; this fit has none of them."
    )


def _climb(ax, trace):
    objective, best = trace["objective"].values, trace["best"].values
    for i in np.argsort(best):
        last = int(np.isfinite(objective[i]).sum())
        style = _lane_style(bool(best[i]), "the best restart")
        ax.plot(np.arange(1, last + 1), objective[i, :last], **style)
        ax.plot(last, objective[i, last - 1], "o", ms=3.5, **{**style, "label": None})
    # The first steps climb from far below, and would hide how the restarts end.
    ends = trace["final_objective"].values
    ends = ends[np.isfinite(ends)]
    top, low = ends.max(), min(ends.min(), np.nanmedian(objective))
    gap = max(top - low, 1e-3 * abs(top))
    ax.set_ylim(top - 1.3 * gap, top + 0.08 * gap)
    ax.set_xlabel("step")
    ax.set_ylabel("objective (nats)")
    _add_count(ax, len(best), "restart")
    return _finished(ax, legend=True)


def _descent(ax, trace):
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
            ax.plot(np.arange(1, own.size + 1), own, color=COLOURS[0], alpha=0.2, lw=0.5)
        ax.plot(steps, smooth, **_lane_style(bool(best[i]), words))
        shown.append(own)
    every = np.concatenate(shown) if shown else np.zeros(1)
    low, high = np.quantile(every, [0.001, 0.98])
    margin = 0.1 * max(high - low, 1e-3 * abs(high))
    ax.set_ylim(low - margin, high + margin)
    ax.set_xlabel("step")
    ax.set_ylabel("loss: minus the ELBO (nats)")
    _add_count(ax, len(best), "start")
    return _finished(ax, legend=True)


def _chains(ax, lp):
    import matplotlib.pyplot as plt

    values = lp.transpose("chain", "draw").values
    # Shades of one map: chains are alike, and experts have the other colours.
    shades = plt.get_cmap("viridis")(np.linspace(0.1, 0.85, len(values)))
    for chain, (own, shade) in enumerate(zip(values, shades, strict=True)):
        ax.plot(own, color=shade, lw=0.6, alpha=0.85, label=f"chain {chain}")
    ax.set_xlabel("draw")
    ax.set_ylabel("log density (nats)")
    ax.margins(x=0.01)
    return _finished(ax, legend=True)


def _lane_style(best: bool, label: str) -> dict[str, Any]:
    if best:
        return {"color": COLOURS[0], "lw": 2.0, "zorder": 3, "label": label}
    return {"color": PALE, "lw": 0.9}


def _add_count(ax, count: int, word: str) -> None:
    if count > 1:
        ax.plot([], [], color=PALE, label=f"the other {count - 1} {word}s")


# What all pictures share.


def _axes(ax):
    if ax is not None:
        return ax
    import matplotlib.pyplot as plt

    return plt.subplots(figsize=(6.4, 3.8), layout="constrained")[1]


def _axes_array(ax, count: int, caller: str, *, height: float, width: float):
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


def _colours(count: int) -> list[Any]:
    if count <= len(COLOURS):
        return list(COLOURS[:count])
    import matplotlib.pyplot as plt

    return list(plt.get_cmap("viridis")(np.linspace(0, 0.95, count)))


def _experts(array) -> list[str]:
    return [f"{EXPERT} {label}" for label in array[EXPERT].values]


def _label_input(ax, x, column: int) -> None:
    names = [str(name) for name in x[x.dims[1]].values]
    rest = " (other inputs at their means)" if len(names) > 1 else ""
    ax.set_xlabel(names[column] + rest)
    ax.margins(x=0)


def _finished(ax, *, legend: bool):
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        ax.spines[side].set_color(PALE)
    ax.tick_params(color=PALE, labelcolor=GREY)
    if legend and ax.get_legend_handles_labels()[0]:
        _legend(ax)
    return ax


def _legend(ax, title: str | None = None) -> None:
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
