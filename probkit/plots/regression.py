"""Pictures of a regression: y over x."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.fits.predict import predict
from probkit.fits.value import SAMPLE, Fit
from probkit.plots import style

# Enough draws for smooth curves, computed in less than a second. A power of two, because
# `predict` works in batches and would compile a second program for a remainder.
NUM_DRAWS = 4096


def band(
    fitted: Fit,
    ax: Any = None,
    *,
    key: PRNGKeyArray,
    prob: float = 0.9,
    num: int = 200,
    input: str | None = None,
):
    """The data, the posterior mean of y, and the predictive interval of a new y.

    Args:
        fitted: a fit of a regression whose data have inputs `x` of shape `(n,)` or
            `(n, d)` and outputs `y` of shape `(n,)`, and whose `predict` returns `y`, one
            value per input. Where `predict` returns `mean` as well, that is averaged.
        ax: Matplotlib axes to draw into; by default those of a new figure.
        key: a JAX random key, for the predictive draws.
        prob: probability of the predictive interval, in (0, 1). Its ends are quantiles.
        num: number of inputs at which mean and interval are computed, 2 or more.
        input: name of the input to vary; the others stay at their means. Required if the
            data have several inputs. An `x` of shape `(n,)` is called `x`.

    Returns:
        The axes: y against the input, each in its own units. In a mixture each point has
        the colour of the label it came from, or a blend where that is uncertain.

    Raises:
        ValueError: if data or predictions lack one of these arrays, there is no such
            input, `num` is less than 2, or `prob` is not in (0, 1).
    """
    x, y = inputs_and_outputs(fitted, "band")
    style.refuse_not_probability(prob, "band")
    line = line_along(x, input, num, "band")
    predicted = predict(resampled(fitted), line.grid, key=key)
    _refuse_no_outputs(predicted, fitted, num)
    ends = style.interval(predicted["y"], prob)
    centre = predicted.get("mean", predicted["y"]).mean(SAMPLE)
    ax = style.axes(ax)
    label = f"{prob:.0%} interval of new y"
    ax.fill_between(line.at, *ends, color=style.PALE, alpha=0.45, lw=0, label=label)
    ax.plot(line.at, centre, color=style.INK, lw=1.8, label="mean of y")
    points = {"s": 18, "edgecolors": "white", "linewidths": 0.4, "zorder": 3}
    colours, names = _point_colours(fitted)
    ax.scatter(line.observed, y.values, c=colours, **points)
    for name, colour in names.items():
        ax.scatter([], [], color=colour, label=name, **points)
    label_input(ax, line)
    ax.set_ylabel("y")
    return style.finish(ax, legend=True)


def inputs_and_outputs(fitted: Fit, caller: str):
    """`x` and `y` of the data, of shapes (n,) or (n, d), and (n,)."""
    tree = fitted.tree
    x = tree["constant_data"].get("x") if "constant_data" in tree else None
    y = tree["observed_data"].get("y") if "observed_data" in tree else None
    missing = []
    if x is None or x.ndim not in (1, 2):
        missing.append("inputs `x` of shape (n,) or (n, d)")
    if y is None or y.ndim != 1:
        missing.append("observed outputs `y` of shape (n,)")
    if x is not None and y is not None and not missing and len(x) != len(y):
        missing.append("one row of `x` per value of `y`")
    if missing:
        raise ValueError(
            f"`plots.{caller}` draws y over x. Missing: {' and '.join(missing)}; the data "
            f"of this `{type(fitted.model).__name__}` have {_data_shapes(tree)}. "
            "`plots.posterior` draws any fit."
        )
    return x, y


def _data_shapes(tree) -> str:
    groups = [tree[g] for g in ("constant_data", "observed_data") if g in tree]
    arrays = {k: v for group in groups for k, v in group.data_vars.items()}
    return ", ".join(f"`{k}` {v.shape}" for k, v in arrays.items()) or "no arrays"


def _refuse_no_outputs(predicted, fitted: Fit, num: int) -> None:
    if "y" not in predicted or predicted["y"].shape[2:] != (num,):
        shapes = {name: array.shape[2:] for name, array in predicted.items()}
        raise ValueError(
            f"`plots.band` needs `y` of shape ({num},) from `predict` at {num} inputs; "
            f"`predict` of `{type(fitted.model).__name__}` returns "
            f"{', '.join(f'`{k}` {v}' for k, v in shapes.items()) or 'nothing'}."
        )


@dataclass(frozen=True)
class Line:
    """A line through the inputs: one varies, and the others stay at their means."""

    label: str
    observed: np.ndarray  # the input in the data, shape (n,)
    at: np.ndarray  # the input in the picture, shape (num,)
    grid: np.ndarray  # what `predict` takes, shape (num,) or (num, d)


def line_along(x, input: str | None, num: int, caller: str) -> Line:
    """`num` points along one input, a little beyond its smallest and largest value."""
    if num < 2:
        raise ValueError(f"`plots.{caller}(num={num})`: it must be at least 2.")
    names = ["x"] if x.ndim == 1 else [str(name) for name in x[x.dims[1]].values]
    if input is None and len(names) > 1:
        raise ValueError(
            f"`plots.{caller}` varies one input, and these data have {len(names)}; "
            f"choose one of {', '.join(names)}, such as `input={names[0]!r}`."
        )
    if input is not None and input not in names:
        raise ValueError(
            f"`plots.{caller}(input={input!r})`: the inputs are {', '.join(names)}."
        )
    column = 0 if input is None else names.index(input)
    values = x.values.reshape(len(x), len(names))
    low, high = values[:, column].min(), values[:, column].max()
    margin = 0.02 * (high - low)
    grid = np.tile(values.mean(0), (num, 1))
    grid[:, column] = np.linspace(low - margin, high + margin, num)
    at = grid[:, column]
    rest = " (other inputs at their means)" if len(names) > 1 else ""
    label = names[column] + rest
    return Line(label, values[:, column], at, at if x.ndim == 1 else grid)


def resampled(fitted: Fit) -> Fit:
    """The same posterior in `NUM_DRAWS` draws, thinned or repeated.

    `predict` gives one new y per draw, and quantiles of a few new y are rough.
    """
    import xarray as xr

    posterior = fitted.posterior
    chains, draws = posterior.sizes["chain"], posterior.sizes["draw"]
    picked = np.linspace(0, chains * draws, NUM_DRAWS, endpoint=False).astype(int)
    chain = xr.DataArray(picked // draws, dims="pick")
    draw = xr.DataArray(picked % draws, dims="pick")
    flat = posterior.isel(chain=chain, draw=draw).drop_vars(SAMPLE)
    flat = flat.rename(pick="draw").expand_dims(chain=[0])
    return replace(fitted, tree=xr.DataTree.from_dict({"posterior": flat}))


def _point_colours(fitted: Fit):
    """One colour per observation, and the names of the colours.

    Colours are averaged with the probabilities of the labels *given* y as weights.
    """
    import matplotlib.colors as mpl

    axis = fitted.model.interchangeable
    if axis is None:
        return style.GREY, {}
    given = predict(resampled(fitted), fitted.data, key=jax.random.key(0))
    if "membership" not in given:
        return style.GREY, {}
    share = given["membership"].mean(SAMPLE).transpose(..., axis)
    colours = style.colours(share.sizes[axis])
    mixed = share.values @ np.array([mpl.to_rgb(colour) for colour in colours])
    return np.clip(mixed, 0, 1), dict(zip(style.entries(share, axis), colours, strict=True))


def label_input(ax, line: Line) -> None:
    """Name the horizontal axis, which ends where the curves end."""
    ax.set_xlabel(line.label)
    ax.margins(x=0)
