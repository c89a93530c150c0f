"""Where to predict: new rows of data sets, given what is known of these."""

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from probkit.models.meta.episodes import Episodes
from probkit.models.meta.filled import filled_inputs
from probkit.validate import as_array, short

PREDICT = "predict(..., inputs)"


class New:
    """Rows of data sets that were not in the fit.

    Args:
        x: inputs of the rows to predict, `(n, q, d)`, or `(n, q)` with one input, or one
            array per data set, as for `Episodes`.
        support_x: inputs of the rows whose values are known, with the same `n`; by default
            there are none.
        support_y: their values.
    """

    def __init__(self, x: Any, support_x: Any = None, support_y: Any = None):
        if (support_x is None) != (support_y is None):
            raise ValueError("`New(support_x=..., support_y=...)` takes both, or neither.")
        self.x, self.support_x, self.support_y = x, support_x, support_y


class Queries(eqx.Module):
    """Rows to predict.

    A compiled program is for certain names and any numbers. Therefore `names` are those of
    all data sets that could be asked for, and `number` says which ones are.

    Attributes:
        support: data sets with the rows that are known of them, `n` of them, without names.
        x: inputs of the rows to predict, `(n, q, *s)`.
        asked: which of these there are, `(n, q)`; predictions of others are NaN.
        number: of each data set, `(n,)`, among `names`.
        names: of data sets, or None if they are counted.
    """

    support: Episodes
    x: Float[Array, "n q *s"]
    asked: Bool[Array, "n q"]
    number: Int[Array, " n"]
    names: tuple[Any, ...] | None = eqx.field(static=True, default=None)

    def labels(self) -> np.ndarray:
        """Names of the data sets, or their numbers."""
        number = np.asarray(self.number)
        return number if self.names is None else np.array(self.names)[number]


def queries(given: Any, data: Episodes) -> Queries:
    """What the user gave, checked against the data of the fit.

    Args:
        given: `Episodes`, whose own rows are predicted given these rows; or
            `{name: inputs}` of data sets of the fit; or `New`.
        data: the data of the fit.

    Raises:
        ValueError: for something else, unknown names, and inputs of other shapes.
    """
    if isinstance(given, Queries):
        return given
    if isinstance(given, Episodes):
        _refuse_other_inputs(given.x, data)
        _refuse_other_columns(given, data)
        shared = {name: getattr(data, name) for name in Episodes.shared}
        own = given.of_rows(shared | _cast(given, data), None)
        return Queries(own, own.x, own.seen, jnp.arange(len(own)), given.names)
    if isinstance(given, New):
        x, asked = _inputs(given.x, data)
        return Queries(_support(given, len(x), data), x, asked, jnp.arange(len(x)))
    if isinstance(given, Mapping) and given:
        labels = {name: i for i, name in enumerate(data.names or range(len(data)))}
        unknown = [name for name in given if name not in labels]
        if unknown:
            raise ValueError(
                f"`{PREDICT}` has {short(unknown[0])}, which is no data set of the fit; "
                "give `meta.New(x, support_x, support_y)` for another one."
            )
        x, asked = _inputs(list(given.values()), data)
        number = jnp.array([labels[name] for name in given])
        rows = {name: array[number] for name, array in data.rows().items()}
        return Queries(data.of_rows(rows, None), x, asked, number, data.names)
    raise ValueError(
        f"`{PREDICT}` got {short(given)}; it takes `{{name: inputs}}` of data sets of the "
        "fit, `meta.New(x, support_x, support_y)`, or `meta.Episodes`."
    )


def _inputs(given: Any, data: Episodes) -> tuple[Array, Array]:
    x, asked = filled_inputs(given, PREDICT)
    _refuse_other_inputs(x, data)
    rows = np.broadcast_to(asked.reshape(*asked.shape, *[1] * (x.ndim - 2)), x.shape)
    array = as_array(x, PREDICT, seen=rows).astype(data.x.dtype)
    return array, jnp.asarray(asked)


def _refuse_other_inputs(x: Any, data: Episodes) -> None:
    if x.shape[2:] != data.x.shape[2:]:
        raise ValueError(
            f"`{PREDICT}` has inputs of shape {x.shape[2:]} per row; the data of the fit "
            f"have {data.x.shape[2:]}."
        )


def _refuse_other_columns(given: Episodes, data: Episodes) -> None:
    ours, theirs = data.columns, given.columns
    if ours is not None and theirs is not None and ours != theirs:
        raise ValueError(
            f"`{PREDICT}` has the inputs {', '.join(theirs)}; the data of the fit have "
            f"{', '.join(ours)}, in this order."
        )


def _support(given: New, count: int, data: Episodes) -> Episodes:
    if given.support_x is None:
        return _nothing(count, data)
    x, _ = filled_inputs(given.support_x, "New(support_x=...)")
    if len(x) != count:
        raise ValueError(
            f"`New` got rows of {count} data sets to predict, and known rows of "
            f"{len(x)}; give both for each."
        )
    if x.shape[1] == 0:  # empty lists do not say how many inputs a row has
        return _nothing(count, data)
    _refuse_other_inputs(x, data)
    y, units = given.support_y, data.units
    support = Episodes(given.support_x, y, units=units, may_be_empty=True)
    return support.of_rows(_cast(support, data), None)


def _nothing(count: int, data: Episodes) -> Episodes:
    """Data sets of which nothing is known."""
    x = jnp.zeros((count, 1, *data.x.shape[2:]), data.x.dtype)
    y = jnp.zeros((count, 1), data.dtype)
    return data.of_rows({"x": x, "y": y, "seen": y > 0}, None)


def _cast(given: Episodes, data: Episodes) -> dict[str, Array]:
    """Rows in the dtype of the data of the fit."""
    return {name: getattr(given, name).astype(data.dtype) for name in ("x", "y")}
