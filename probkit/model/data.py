"""The data of a family: validated arrays, with the names that `dims` uses."""

import dataclasses
import functools
import types
import typing
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import AbstractArray, Array, Int

from probkit.validate import as_array


class AbstractData(eqx.Module):
    """Arrays with one row per observation, and what else the model needs.

    A subclass lists its arrays as fields, `x: Float[Array, "n d"]`. A list, NumPy, pandas
    or xarray object in such a field becomes a JAX array. NaN, infinities and text raise
    a ValueError that names the field. The methods have bodies, which rely on one rule:
    every array field with at least one axis has one row per observation, except the
    fields named in `shared`.

    Attributes:
        shared: names of the array fields that are the same for all observations, such as
            knots or the mean of a column. `take` does not change them.
    """

    shared: ClassVar[tuple[str, ...]] = ()

    def __check_init__(self):
        kind = type(self)
        for name in _array_fields(kind):
            given = getattr(self, name)
            if given is None or isinstance(given, jax.core.Tracer):
                continue
            what = f"{kind.__name__}({name}=...)"
            array = as_array(given, what, complex_too=True, whole_too=True)
            if not isinstance(given, jax.Array):  # a JAX array stays on its devices
                object.__setattr__(self, name, array)
        if type(self).__len__ is AbstractData.__len__:
            len(self)  # raises if arrays differ in their number of rows

    def rows(self) -> dict[str, Array]:
        """The arrays with one row per observation, by the names of their fields."""
        return {
            name: array
            for name, array in vars(self).items()
            if eqx.is_array(array) and array.ndim > 0 and name not in self.shared
        }

    def __len__(self) -> int:
        """The number of observations."""
        kind = type(self).__name__
        counts = {name: array.shape[0] for name, array in self.rows().items()}
        if not counts:
            raise ValueError(
                f"`{kind}` has no array with one row per observation; give it one, or "
                "define `__len__`."
            )
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count} rows of `{name}`" for name, count in counts.items())
            raise ValueError(
                f"`{kind}` got {found}; each observation has one row of each. Name an "
                f"array that all observations share in `{kind}.shared`."
            )
        return next(iter(counts.values()))

    def take(self, indices: Int[Array, " b"]) -> "AbstractData":
        """The observations at `indices`.

        The constructor is not called, because inside a compiled program the arrays have
        no values that it could check.

        Args:
            indices: whole numbers from 0 to `len(self) - 1`, in any order, with
                repetitions.

        Returns:
            Data of the same class with `b` observations.
        """
        taken = {name: array[indices] for name, array in self.rows().items()}
        return self.replaced(taken)

    def replaced(self, arrays: dict[str, Any]) -> "AbstractData":
        """The same data with other arrays in some fields. They are not checked.

        Args:
            arrays: the new arrays, by the names of their fields.

        Returns:
            Data of the same class.
        """
        names = list(arrays)
        return eqx.tree_at(
            lambda data: [getattr(data, name) for name in names],
            self,
            [arrays[name] for name in names],
        )

    # What a file keeps.

    def arrays(self) -> dict[str, Array]:
        """The arrays that a file keeps, by their names in `dims`."""
        return {k: v for k, v in vars(self).items() if eqx.is_array(v)}

    def fields(self) -> dict[str, Any]:
        """What a file keeps besides the arrays, by the names of their fields."""
        arrays = self.arrays()
        return {k: v for k, v in vars(self).items() if k not in arrays}

    @classmethod
    def restore(cls, arrays: dict[str, Any], fields: dict[str, Any]) -> "AbstractData":
        """The data, from what a file keeps.

        Args:
            arrays: what `arrays` returned.
            fields: what `fields` returned, in the types of JSON: tuples became lists.

        Returns:
            Data equal to those that were saved.
        """
        return cls(**{k: jnp.asarray(v) for k, v in arrays.items()}, **fields)


@functools.cache
def _array_fields(kind: type) -> tuple[str, ...]:
    """Names of the fields that are annotated as arrays, or as arrays or None."""
    try:
        hints = typing.get_type_hints(kind)
    except NameError:  # the text of an annotation names a class inside a function
        hints = {field.name: field.type for field in dataclasses.fields(kind)}
    return tuple(
        field.name
        for field in dataclasses.fields(kind)
        if any(map(_is_array, _members(hints[field.name])))
    )


def _members(hint: Any) -> tuple[Any, ...]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _is_array(hint: Any) -> bool:
    return isinstance(hint, type) and issubclass(hint, jax.Array | AbstractArray)
