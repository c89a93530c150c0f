"""Long tables, with one row per observation and a column that says of which group."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from probkit.model.tables import column, pick, with_values
from probkit.models.meta.filled import common_dtype
from probkit.validate import as_array, short

WHAT = "Episodes.from_table"


class Grouped(NamedTuple):
    """The rows of a table by their groups, in order of first appearance.

    Attributes:
        x: inputs of each group, `(m_i, d)`.
        y: values of each group, `(m_i,)`.
        names: of the groups.
        columns: names of the inputs.
    """

    x: list[np.ndarray]
    y: list[np.ndarray]
    names: list[Any]
    columns: tuple[str, ...]


def grouped(table: Any, group: Any, x: Any, y: Any) -> Grouped:
    """The rows of a table by their groups. Rows without a value are left out.

    Args:
        table: a data frame of pandas or polars, an xarray object, or a dict of arrays.
        group: the column, or columns, whose values are the names of the groups.
        x: the columns of the inputs.
        y: the column of the values.
    """
    groups, inputs = _listed(group, "group"), _listed(x, "x")
    used = [*groups, *inputs, y]
    named = all(isinstance(name, str) for name in used)
    if not groups or not named or len(set(used)) < len(used):
        raise ValueError(
            f"`{WHAT}` got the columns {short(used)}; it takes the names of one column or "
            "more for `group`, of the inputs `x`, and of the values `y`, all different."
        )
    found = pick(table, used, WHAT)
    _refuse_other_lengths(found, y)
    names, which = _groups([column(found[g], g, WHAT, labels=True).values for g in groups])
    kept = with_values(found[y], y, WHAT)
    there = np.zeros(len(which), bool)
    there[kept] = True
    arrays = [_numbers(found[name], name, there) for name in (*inputs, y)]
    dtype = common_dtype([np.asarray(found[name]) for name in (*inputs, y)])
    *columns, values = (array.astype(dtype) for array in arrays)
    design = np.stack(columns, 1) if columns else np.zeros((len(which), 0), dtype)
    rows = kept[np.argsort(which[kept], kind="stable")]
    ends = np.cumsum(np.bincount(which[kept], minlength=len(names)))[:-1]
    by_group = [np.split(array[rows], ends) for array in (design, values)]
    return Grouped(by_group[0], by_group[1], names, tuple(inputs))


def _listed(given: Any, name: str) -> list[Any]:
    if isinstance(given, str):
        return [given]
    if not isinstance(given, Sequence):
        raise ValueError(
            f"`{WHAT}({name}={short(given)})`: it takes the name of a column, or a list of "
            "names."
        )
    return list(given)


def _refuse_other_lengths(found: dict[str, Any], value: str) -> None:
    sizes = {name: len(one) if np.ndim(one) else 0 for name, one in found.items()}
    for name, size in sizes.items():
        if size == 0 or size != sizes[value]:
            raise ValueError(
                f"`{WHAT}`: `{name}` has {size} rows and `{value}` {sizes[value]}; give "
                "one value of each per row, and at least one row."
            )


def _groups(columns: list[np.ndarray]) -> tuple[list[Any], np.ndarray]:
    """Names of the groups, and the number of the group of each row."""
    codes = [np.unique(one, return_inverse=True)[1] for one in columns]
    _, first, which = np.unique(
        np.stack(codes, 1), axis=0, return_index=True, return_inverse=True
    )
    order = np.argsort(first)
    number = np.empty(len(order), int)
    number[order] = np.arange(len(order))
    each = zip(*(one[first[order]].tolist() for one in columns), strict=True)
    names = [own[0] if len(own) == 1 else ", ".join(map(str, own)) for own in each]
    return names, number[which.reshape(-1)]


def _numbers(given: Any, name: str, there: np.ndarray) -> np.ndarray:
    """A column of numbers, or of truth values as zeros and ones."""
    what = f"{WHAT}({name})"
    if hasattr(getattr(given, "dtype", None), "categories"):
        raise ValueError(
            f"`{WHAT}`: `{name}` holds categories; it takes real numbers. Make 0/1 columns "
            "of them, such as `pd.get_dummies` does."
        )
    return np.asarray(as_array(given, what, seen=there, remedy="drop or impute those rows"))
