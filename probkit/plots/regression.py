"""Pictures of a regression: y over x."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.fits.predict import predict
from probkit.fits.value import SAMPLE, Fit
from probkit.plots import style

# Enough draws for a smooth band, few enough to compute in a moment, and whole batches of
# `predict`, which would compile anew for a remainder.
BAND_DRAWS = 4096


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
    x, y = inputs_and_outputs(fitted, "band")
    style.refuse_not_probability(prob, "band")
    column, grid = grid_along(x, input, num, "band")
    predicted = predict(resampled(fitted), grid, key=key)
    if "y" not in predicted:
        raise ValueError(
            f"`plots.band`: `predict` of `{type(fitted.model).__name__}` has "
            f"{style.listed(predicted)} but no `y` to make a band of."
        )
    at = grid[:, column]
    ends = style.interval(predicted["y"], prob)
    centre = predicted.get("mean", predicted["y"]).mean(SAMPLE)
    ax = style.axes(ax)
    ax.fill_between(
        at, *ends, color=style.PALE, alpha=0.45, lw=0, label=f"{prob:.0%} of new y"
    )
    ax.plot(at, centre, color=style.INK, lw=1.8, label="mean of y")
    points = {"s": 18, "edgecolors": "white", "linewidths": 0.4, "zorder": 3}
    colours, experts = _point_colours(fitted)
    ax.scatter(x.values[:, column], y.values, c=colours, **points)
    for name, colour in experts.items():
        ax.scatter([], [], color=colour, label=name, **points)
    label_input(ax, x, column)
    ax.set_ylabel("y")
    return style.finish(ax, legend=True)


def inputs_and_outputs(fitted: Fit, caller: str):
    tree = fitted.tree
    x = tree["constant_data"].get("x") if "constant_data" in tree else None
    y = tree["observed_data"].get("y") if "observed_data" in tree else None
    if x is None or y is None or x.ndim != 2 or y.ndim != 1:
        raise ValueError(
            f"`plots.{caller}` draws y over x, for a fit whose data have inputs `x` of "
            "shape (n, d) and outputs `y` of shape (n,); the data of this "
            f"`{type(fitted.model).__name__}` have {style.listed(_data_variables(tree))}. "
            "`plots.posterior` draws any fit."
        )
    return x, y


def _data_variables(tree) -> dict[str, Any]:
    groups = [tree[g] for g in ("constant_data", "observed_data") if g in tree]
    return {k: v for group in groups for k, v in group.data_vars.items()}


def grid_along(x, input: str | None, num: int, caller: str) -> tuple[int, np.ndarray]:
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


def resampled(fitted: Fit) -> Fit:
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


def _point_colours(fitted: Fit):
    """Each observation mixed from the colours of the experts, and whose they are.

    The shares are those of the experts *given* y: what each explains of the observation.
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


def label_input(ax, x, column: int) -> None:
    names = [str(name) for name in x[x.dims[1]].values]
    rest = " (other inputs at their means)" if len(names) > 1 else ""
    ax.set_xlabel(names[column] + rest)
    ax.margins(x=0)
