"""What data get for free: checks, rows, batches, files."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from jaxtyping import Array, Float, Int

from doors import refused
from own import Counts
from probkit.model import AbstractData


class Grouped(AbstractData):
    shared: ClassVar[tuple[str, ...]] = ("knots",)

    group: Int[Array, " n"]
    x: Float[Array, "n d"]
    y: Float[Array, " n"] | None
    knots: Float[Array, " k"]
    label: str = eqx.field(static=True, default="a")


def grouped(n=5):
    x = np.arange(2.0 * n).reshape(n, 2)
    return Grouped([0, 1, 1, 0, 1][:n], x, pd.Series(range(n)), np.arange(float(n)))


def test_lists_and_tables_become_arrays():
    data = grouped()
    assert all(isinstance(a, jax.Array) for a in data.arrays().values())
    assert data.group.dtype == jnp.int64
    assert data.x.dtype == jnp.float64
    assert len(data) == 5


def test_rows_are_taken_of_all_arrays_but_the_shared():
    # `knots` has as many entries as there are rows, and is left as it is.
    some = jax.jit(lambda data: data.take(jnp.array([3, 1])))(grouped())
    np.testing.assert_array_equal(some.x, [[6, 7], [2, 3]])
    np.testing.assert_array_equal(some.group, [0, 1])
    np.testing.assert_array_equal(some.knots, np.arange(5.0))
    assert len(some) == 2


def test_data_come_back_from_arrays_and_fields():
    data = grouped()
    arrays = {name: np.asarray(array) for name, array in data.arrays().items()}
    assert eqx.tree_equal(Grouped.restore(arrays, data.fields()), data)


REFUSED = {
    "another length": (
        lambda: Counts([1, 2], [1, 2, 3]),
        r"2 rows of `x`, 3 rows of `y`; each observation has one row .*`Counts.shared`",
    ),
    "a NaN": (
        lambda: Counts([1.0, np.nan], [1, 2]),
        r"`Counts\(x=...\)` has 1 value .*NaN",
    ),
    "text": (lambda: Counts(["a", "b"], [1, 2]), r"`Counts\(x=...\)` holds text"),
    "ragged rows": (lambda: Counts([[1], [2, 3]], [1, 2]), r"`Counts\(x=...\)` is ragged"),
    "no rows": (lambda: Counts(1.0, 2.0), "has no array with one row per observation"),
}


@pytest.mark.parametrize("make, words", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_no_data_is_refused_by_the_name_of_its_field(make, words):
    refused(make, words)
