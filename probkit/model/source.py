"""Data addressed by step: a run gets other rows, batches or episodes in each step."""

import math
from abc import abstractmethod
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, PRNGKeyArray

from probkit.model.data import AbstractData


class AbstractSource(eqx.Module):
    """Data for each step of a run.

    The data of a step follow from its number alone, so that a resumed run sees what an
    uninterrupted one does. A checkpoint belongs to a source with the same fields.
    """

    @abstractmethod
    def at(self, step: Any) -> AbstractData:
        """The data of a step. It can be traced: a random draw comes from
        `jax.random.fold_in(self.key, step)`.

        Args:
            step: the number of the step, from 0, possibly traced.

        Returns:
            Data of equal shapes for all steps.
        """

    def example(self) -> AbstractData:
        """Data such as those of a step, which the fit keeps. By default of step 0."""
        return self.at(jnp.zeros((), jnp.int32))

    def num_rows(self) -> int | None:
        """For how many observations those of a step stand, or None (by default) if they
        count as they are.
        """
        return None


class Rows(AbstractSource):
    """Rows drawn at random from all data, with replacement.

    Attributes:
        data: all data.
        key: a JAX random key.
        size: the number of rows per step.
    """

    data: AbstractData
    key: PRNGKeyArray
    size: int = eqx.field(static=True)

    def at(self, step):
        rows = draw_rows(jax.random.fold_in(self.key, step), len(self.data), self.size)
        return self.data.take(rows)

    def num_rows(self):
        return len(self.data)


class Rounds(AbstractSource):
    """Batches of all data in turn, in an order that changes from round to round.

    The noise of the batches of a round adds up to zero, which that of rows drawn with
    replacement does not.

    Attributes:
        data: all data.
        rows: the numbers of their rows, shuffled.
        key: a JAX random key.
        size: the number of rows per step.
    """

    data: AbstractData
    rows: Int[Array, " n"]
    key: PRNGKeyArray
    size: int = eqx.field(static=True)

    @classmethod
    def of(cls, data: AbstractData, key: PRNGKeyArray, size: int) -> "Rounds":
        key_rows, key = jax.random.split(key)
        return cls(data, jax.random.permutation(key_rows, len(data)), key, size)

    def at(self, step):
        n = len(self.data)
        count = -(-n // self.size)
        order = jax.random.permutation(jax.random.fold_in(self.key, step // count), count)
        # The last batch of a round is filled up with the first rows.
        first = order[step % count] * self.size
        return self.data.take(self.rows[(first + jnp.arange(self.size)) % n])

    def num_rows(self):
        return len(self.data)


def draw_rows(key: PRNGKeyArray, count: int, size: int) -> Int[Array, " b"]:
    """`size` of `count` rows, drawn with replacement.

    A draw without replacement would sort all rows, at a cost that grows with the data.
    With replacement the variance of a sum over the batch is larger by the factor
    `(count - 1) / (count - size)`. There is no bias.

    Args:
        key: a JAX random key.
        count: the number of rows.
        size: the number of rows in the batch.

    Returns:
        Row numbers from 0 to `count - 1`.
    """
    return jax.random.randint(key, (size,), 0, count)


class AbstractHostSource(AbstractSource):
    """Data that Python reads, such as files: some steps at a time, between compiled chunks.

    A checkpoint knows the fields of the source, such as a path, and not the files.
    """

    @abstractmethod
    def example(self) -> AbstractData:
        """Data of the shapes of a step, which the fit keeps."""

    @abstractmethod
    def chunk(self, first: int, count: int) -> dict[str, Any]:
        """The rows of some steps in succession.

        Args:
            first: the number of the first step.
            count: the number of steps, one or more.

        Returns:
            `{field: array[count, ...]}` for each array of the data with one row per
            observation. Shared arrays are those of the example.
        """

    def at(self, step):
        return Chunk.read(self, self.example(), int(step), 1, 1).at(0)


class Chunk(AbstractSource):
    """What a host source has read.

    Attributes:
        like: data of the shapes of a step.
        arrays: `{field: array[step, ...]}`.
    """

    like: AbstractData
    arrays: dict[str, Array]

    @classmethod
    def read(
        cls,
        source: AbstractHostSource,
        like: AbstractData,
        first: int,
        count: int,
        capacity: int,
    ) -> "Chunk":
        """Read `count` steps. Zeros fill the arrays up to `capacity` steps.

        Raises:
            ValueError: if the arrays do not fit the example, `like`.
        """
        found = source.chunk(first, count) if count else {}
        what = f"{type(source).__name__}.chunk({first}, {count})"
        rows = like.rows()
        if count and set(found) != set(rows):
            raise ValueError(
                f"`{what}` gave {', '.join(map(str, found)) or 'nothing'}; it gives "
                f"{', '.join(rows)}, as the example has."
            )
        arrays = {}
        for name, one in rows.items():
            whole = np.zeros((capacity, *one.shape), one.dtype)
            if count:
                array = np.asarray(found[name])
                if array.shape != (count, *one.shape):
                    raise ValueError(
                        f"`{what}` gave `{name}` of shape {array.shape}; for {count} steps "
                        f"such as the example it has {(count, *one.shape)}."
                    )
                whole[:count] = array
            arrays[name] = jnp.asarray(whole)
        return cls(like, arrays)

    def at(self, step):
        return self.like.replaced({name: a[step] for name, a in self.arrays.items()})


class From(AbstractSource):
    """A source whose steps are counted from another one than zero."""

    source: AbstractSource
    first: Int[Array, ""]

    def at(self, step):
        return self.source.at(self.first + step)


# Arrays are the source that gives itself in each step.


def at_step(data: Any, step: Any) -> Any:
    """The data of a step, of a source or of arrays."""
    return data.at(step) if isinstance(data, AbstractSource) else data


def example_of(data: Any) -> Any:
    """The example of a source, or the arrays themselves."""
    return data.example() if isinstance(data, AbstractSource) else data


def steps_from(data: Any, like: Any, first: int, count: int, capacity: int) -> Any:
    """The data of some steps in succession, counted from zero, for a compiled program.

    Args:
        data: a source, or arrays.
        like: its example.
        first: the number of the first step.
        count: the number of steps; none, if the program is only compiled.
        capacity: the largest number of steps of the program.
    """
    if isinstance(data, AbstractHostSource):
        return Chunk.read(data, like, first, count, capacity)
    if isinstance(data, AbstractSource):
        return From(data, jnp.int32(first))
    return data


def numbers_per_step(data: Any, like: Any) -> int:
    """How many numbers are transferred for each step: none, but for a host source."""
    if not isinstance(data, AbstractHostSource):
        return 0
    return sum(math.prod(a.shape) for a in like.rows().values())


def refuse_other_shapes(source: AbstractSource) -> None:
    """Refuse a source whose steps do not have the shapes of its example.

    Raises:
        ValueError: with both shapes.
    """
    if isinstance(source, AbstractHostSource):
        return  # each chunk is compared as it is read
    step = jnp.zeros((), jnp.int32)
    found, wanted = (
        jax.tree.map(lambda a: (a.shape, str(a.dtype)), eqx.filter_eval_shape(f))
        for f in (lambda: source.at(step), source.example)
    )
    if not eqx.tree_equal(found, wanted):
        raise ValueError(
            f"`{type(source).__name__}.at(step)` has other shapes than its `example()`; "
            "give data of equal shapes and dtypes in all steps."
        )
