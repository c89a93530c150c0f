"""Pictures of a mixture: its labels, and the probability of each along an input."""

from typing import Any

import jax

from probkit.fits.predict import predict
from probkit.fits.value import SAMPLE, Fit
from probkit.plots import style
from probkit.plots.regression import (
    inputs_and_outputs,
    label_input,
    line_along,
    resampled,
)


def labels(fitted: Fit, var_name: str | None = None, *, ax: Any = None, **at: Any):
    """Traces of one parameter, to see label switching: one panel per chain.

    Where two colours swap, within a chain or between chains, the labels have switched.
    R-hat and means of labelled parameters are then meaningless; fit with `relabel=True`.

    Args:
        fitted: a fit of a mixture: its model has an axis of interchangeable labels,
            `fit.model.interchangeable`.
        var_name: a variable with that axis; by default the first.
        ax: Matplotlib axes to draw into, one per chain; by default those of a new figure.
        **at: the entry along each other axis of the variable, such as `term="time"`; by
            default the last.

    Returns:
        An array of axes, one per chain: the parameter, in its units, per draw. Each label
        has one colour.

    Raises:
        ValueError: if the model has no interchangeable labels, the fit has no such
            variable or entry, or `ax` has the wrong number of axes.
    """
    axis = _interchangeable(fitted, "labels")
    draws = fitted.posterior
    labelled = [name for name, array in draws.items() if axis in array.dims]
    if not labelled:
        raise ValueError(
            f"`plots.labels` draws variables with an axis `{axis}`, and no variable of "
            f"this fit of `{type(fitted.model).__name__}` has it."
        )
    name = labelled[0] if var_name is None else var_name
    if name not in labelled:
        raise ValueError(
            f"`plots.labels(var_name={name!r})`: the variables with an axis "
            f"`{axis}` are {', '.join(labelled)}."
        )
    array = draws[name]
    others = [dim for dim in array.dims if dim not in (*SAMPLE, axis)]
    at = {dim: draws[dim].values[-1] for dim in others} | at
    _refuse_wrong_place(array, others, at)
    array = array.sel(at).transpose("chain", "draw", axis)
    axes = style.axes_array(ax, array.sizes["chain"], "labels", height=1.25, width=7.2)
    for chain, one in enumerate(axes):
        for k, colour in enumerate(style.colours(array.sizes[axis])):
            values = array.values[chain, :, k]
            one.plot(values, color=colour, lw=0.6, label=style.entries(array, axis)[k])
        one.set_ylabel(f"chain {chain}", color=style.INK)
        one.margins(x=0.01)
        style.finish(one, legend=False)
        if one is not axes[-1]:
            one.tick_params(labelbottom=False)
    low = min(one.get_ylim()[0] for one in axes)
    high = max(one.get_ylim()[1] for one in axes)
    for one in axes:
        one.set_ylim(low, high)
    axes[-1].set_xlabel("draw")
    place = ", ".join(str(value) for value in at.values())
    style.add_legend(axes[0], title=f"{name}[{place}]" if place else name)
    return axes


def _interchangeable(fitted: Fit, caller: str) -> str:
    axis = fitted.model.interchangeable
    if axis is None:
        raise ValueError(
            f"`plots.{caller}` is for mixtures, and `{type(fitted.model).__name__}` has "
            "no axis of interchangeable entries (`interchangeable` is None). "
            "`plots.posterior` draws any fit."
        )
    return axis


def _refuse_wrong_place(array, others: list[str], at: dict[str, Any]) -> None:
    for dim, value in at.items():
        if dim not in others:
            raise ValueError(
                f"`plots.labels({dim}=...)`: `{array.name}` has no axis `{dim}`; its "
                f"other axes: {', '.join(others) or 'none'}."
            )
        if value not in array[dim].values:
            choices = ", ".join(repr(str(v)) for v in array[dim].values)
            raise ValueError(
                f"`plots.labels({dim}={value!r})`: the entries of `{dim}` are {choices}."
            )


def memberships(
    fitted: Fit,
    ax: Any = None,
    *,
    prob: float = 0.9,
    num: int = 200,
    input: str | None = None,
):
    """The probability of each label of a mixture, along one input.

    Args:
        fitted: a fit of a mixture whose data have inputs `x` of shape `(n,)` or `(n, d)`
            and outputs `y` of shape `(n,)`, and whose `predict` returns `membership`, the
            probability of each label.
        ax: Matplotlib axes to draw into; by default those of a new figure.
        prob: probability of the posterior interval of each curve, in (0, 1).
        num: number of inputs at which the curves are computed, 2 or more.
        input: name of the input to vary; the others stay at their means. Required if the
            data have several inputs.

    Returns:
        The axes: posterior mean and interval of each probability, which has no unit,
        along the input in its own units.

    Raises:
        ValueError: if the model has no interchangeable labels, its data or predictions
            lack one of these arrays, there is no such input, `num` is less than 2, or
            `prob` is not in (0, 1).
    """
    axis = _interchangeable(fitted, "memberships")
    x, _ = inputs_and_outputs(fitted, "memberships")
    style.refuse_not_probability(prob, "memberships")
    line = line_along(x, input, num, "memberships")
    # Given a draw, memberships are not random: the key changes only `y`, not drawn here.
    predicted = predict(resampled(fitted), line.grid, key=jax.random.key(0))
    if "membership" not in predicted:
        raise ValueError(
            f"`plots.memberships` needs `membership` from `predict`, the probability of "
            f"each `{axis}`; `predict` of `{type(fitted.model).__name__}` returns "
            f"{style.listed(predicted)}."
        )
    share = predicted["membership"]
    ax = style.axes(ax)
    names = style.entries(share, axis)
    for k, colour in enumerate(style.colours(len(names))):
        own = share.isel({axis: k})
        ax.fill_between(line.at, *style.interval(own, prob), color=colour, alpha=0.25, lw=0)
        ax.plot(line.at, own.mean(SAMPLE), color=colour, lw=1.8, label=names[k])
    label_input(ax, line)
    ax.set_ylabel(f"probability of the {axis}")
    ax.set_ylim(-0.02, 1.02)
    return style.finish(ax, legend=True)
