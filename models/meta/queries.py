"""Where to predict: new rows of data sets, given what is known of these."""

from collections.abc import Iterable, Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

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


class Names:
    """What a compiled program does not read: it is the same program for all names.

    A program is found by what its arguments are equal to. Therefore all names are equal.
    """

    def __init__(self, names: Iterable[Any]):
        self.names = tuple(names)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Names)

    def __hash__(self) -> int:
        return hash(Names)


class Queries(eqx.Module):
    """Rows to predict.

    Attributes:
        support: data sets with the rows that are known of them, `n` of them, without names.
        x: inputs of the rows to predict, `(n, q, *s)`.
        asked: which of these there are, `(n, q)`; predictions of others are NaN.
        names: of the data sets, or their numbers.
    """

    support: Episodes
    x: Float[Array, "n q *s"]
    asked: Bool[Array, "n q"]
    names: Names = eqx.field(static=True)

    def labels(self) -> np.ndarray:
        """Names of the data sets, or their numbers."""
        return np.array(self.names.names)


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
        own = _as_of_fit(given, data)
        return Queries(own, own.x, own.seen, Names(given.labels()))
    if isinstance(given, New):
        x, asked = _inputs(given.x, data)
        return Queries(_support(given, len(x), data), x, asked, Names(range(len(x))))
    if isinstance(given, Mapping) and given:
        labels = {name: i for i, name in enumerate(data.names or range(len(data)))}
        unknown = [name for name in given if name not in labels]
        if unknown:
            raise ValueError(
                f"`{PREDICT}` has {short(unknown[0])}, which is no data set of the fit; "
                "give `meta.New(x, support_x, support_y)` for another one."
            )
        x, asked = _inputs(list(given.values()), data)
        number = np.array([labels[name] for name in given])
        rows = {name: array[number] for name, array in data.rows().items()}
        return Queries(data.of_rows(rows, None), x, asked, Names(data.labels()[number]))
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
    return _as_of_fit(support, data)


def _nothing(count: int, data: Episodes) -> Episodes:
    """Data sets of which nothing is known."""
    x = jnp.zeros((count, 1, *data.x.shape[2:]), data.x.dtype)
    y = jnp.zeros((count, 1), data.dtype)
    return data.of_rows({"x": x, "y": y, "seen": y > 0}, None)


def _as_of_fit(given: Episodes, data: Episodes) -> Episodes:
    """Without names, and with units, columns and dtype of the data of the fit."""
    rows = {name: getattr(given, name).astype(data.dtype) for name in ("x", "y")}
    return data.of_rows(rows | {"seen": given.seen}, None)
