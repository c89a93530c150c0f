r"""Tasks of classification: a few examples of each of a few classes, and queries.

A task has $N$ classes ("ways"), $K$ examples of each whose class is known (the support, "K
shots"), and queries. The classes of a task have no name, only a place: 0, ..., N - 1.
"""

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from probkit.model import AbstractData
from probkit.model.source import AbstractHostSource, AbstractSource
from probkit.validate import as_array, as_key, short, whole

# So many examples of a file give its mean and sd.
SAMPLED = 1000


class Shots(AbstractData):
    """Tasks of classification with equal numbers of classes and examples.

    Args:
        support: examples whose class is known, `(t, n, k, *s)` for `t` tasks of `n` classes
            with `k` examples each, of shape `s`.
        query: more examples of the same classes, `(t, n, q, *s)`.
        center: mean of the examples that priors refer to, `(*s)`, by default that of these.
        spread: their sd, `(*s)`.

    Raises:
        ValueError: for shapes that do not fit, one class, and values that are missing.
    """

    shared: ClassVar[tuple[str, ...]] = ("center", "spread")

    support: Float[Array, "t n k *s"]
    query: Float[Array, "t n q *s"]
    center: Float[Array, "*s"]
    spread: Float[Array, "*s"]

    def __init__(self, support: Any, query: Any, center: Any = None, spread: Any = None):
        support = as_array(support, "Shots(support=...)")
        query = as_array(query, "Shots(query=...)")
        a, b = support.shape, query.shape
        if len(a) < 4 or len(a) != len(b) or a[:2] != b[:2] or a[3:] != b[3:]:
            raise ValueError(
                f"`Shots(support=..., query=...)` got shapes {a} and {b}; for t tasks of n "
                "classes they are (t, n, k, *s) and (t, n, q, *s)."
            )
        if a[1] < 2 or 0 in a[:3] or b[2] == 0:
            raise ValueError(
                f"`Shots(support=..., query=...)` got shapes {a} and {b}; give at least "
                "one task, two classes, and one example of each in both."
            )
        self.support, self.query = support, query.astype(support.dtype)
        if (center is None) != (spread is None):
            raise ValueError("`Shots(center=..., spread=...)` takes both, or neither.")
        if center is None:
            every = np.concatenate([support, query], 2).reshape(-1, *a[3:])
            center, spread = _moments(every)
        self.center = jnp.asarray(center, support.dtype)
        self.spread = jnp.asarray(spread, support.dtype)

    def __len__(self) -> int:
        return len(self.support)

    @property
    def dtype(self) -> Any:
        return self.support.dtype

    @property
    def ways(self) -> int:
        """The number of classes of a task."""
        return self.support.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one example."""
        return self.support.shape[3:]

    def queries(self) -> Float[Array, "t m *s"]:
        """The queries of each task in a row, one class after another."""
        t, n, q = self.query.shape[:3]
        return self.query.reshape(t, n * q, *self.shape)

    def classes(self) -> np.ndarray:
        """The class of each query in that row, `(n q,)`, the same in all tasks."""
        return np.repeat(np.arange(self.ways), self.query.shape[2])


class Members(eqx.Module):
    """Which examples belong to which class.

    Attributes:
        rows: the numbers of all examples, one class after another.
        first: where each class begins there.
        count: the number of examples of each class.
        largest: the largest of these.
    """

    rows: Int[Array, " n"]
    first: Int[Array, " c"]
    count: Int[Array, " c"]
    largest: int = eqx.field(static=True)

    @classmethod
    def of(cls, labels: Any, num_examples: int, size: int, ways: int, kind: str):
        """By the label of each example.

        Args:
            labels: of the examples, numbers or text.
            num_examples: the number of examples.
            size: how many examples a task has of a class.
            ways: how many classes a task has.
            kind: the name of the source, for messages.
        """
        found = _labels(labels, num_examples, kind)
        names, number, count = np.unique(found, return_inverse=True, return_counts=True)
        if len(names) < 2:
            raise ValueError(
                f"`{kind}(labels=...)` has one class, {short(names[0].item())}; give "
                "examples of two or more."
            )
        if len(names) < ways:
            raise ValueError(
                f"`{kind}(ways={ways})`: there are {len(names)} classes; give that many "
                "ways or fewer."
            )
        least = int(np.argmin(count))
        if count[least] < size:
            raise ValueError(
                f"`{kind}(shots=..., queries=...)` takes {size} examples of a class, and "
                f"{short(names[least].item())} has {count[least]}; lower them, or leave "
                "that class out."
            )
        rows = np.argsort(number, kind="stable")
        first = np.cumsum(count) - count
        a, b, c = (jnp.asarray(array, jnp.int32) for array in (rows, first, count))
        return cls(a, b, c, int(count.max()))

    def __len__(self) -> int:
        """The number of classes."""
        return len(self.count)

    def drawn(self, key: PRNGKeyArray, ways: int, size: int) -> Int[Array, "w k"]:
        """Examples of some classes, all drawn without replacement.

        Args:
            key: a JAX random key.
            ways: the number of classes.
            size: the number of examples of each.
        """
        key_class, key_row = jax.random.split(key)
        # The largest of independent numbers are a draw without replacement.
        _, classes = jax.lax.top_k(jax.random.uniform(key_class, (len(self),)), ways)
        order = jax.random.uniform(key_row, (ways, self.largest))
        there = jnp.arange(self.largest) < self.count[classes][:, None]
        _, places = jax.lax.top_k(jnp.where(there, order, -1.0), size)
        return self.rows[self.first[classes][:, None] + places]


class Tasks(AbstractSource):
    """Tasks drawn from labelled examples, others in each step.

    In each task the classes are drawn without replacement, and so are the examples of each
    class. The tasks of a step follow from its number and the key.

    Args:
        images: examples of any shape, `(n, *s)`: images, or features of them.
        labels: the class of each, `(n,)`, numbers or text.
        ways: the number of classes of a task.
        shots: the number of examples of each class whose class is known.
        queries: the number of other examples of each class.
        key: a JAX random key.
        batch_size: the number of tasks per step.

    Raises:
        ValueError: for fewer classes than `ways` or than two, a class with fewer than
            `shots + queries` examples, missing values, and shapes that do not fit.
    """

    images: Float[Array, "n *s"]
    members: Members
    center: Float[Array, "*s"]
    spread: Float[Array, "*s"]
    key: PRNGKeyArray
    ways: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)

    def __init__(
        self,
        images: Any,
        labels: Any,
        ways: int = 5,
        shots: int = 1,
        queries: int = 5,
        *,
        key: PRNGKeyArray,
        batch_size: int = 16,
    ):
        self.ways, self.shots, self.queries, self.batch_size = _sizes(
            "Tasks", ways, shots, queries, batch_size
        )
        self.key = as_key(key, "Tasks(key=...)")
        self.images = as_array(images, "Tasks(images=...)")
        _refuse_no_examples(self.images.shape, "Tasks(images=...)")
        self.members = Members.of(
            labels, len(self.images), self.shots + self.queries, self.ways, "Tasks"
        )
        moments = _moments(np.asarray(self.images))
        self.center, self.spread = (jnp.asarray(m, self.images.dtype) for m in moments)

    def at(self, step):
        rows = _rows_of_step(
            self.members,
            self.key,
            jnp.asarray(step),  # a Python number would be part of the program
            self.ways,
            self.shots + self.queries,
            self.batch_size,
        )
        return _shots_of(self.images[rows], self.shots, self.center, self.spread)

    def num_rows(self):
        """As many tasks as have all classes once, so that no class counts twice."""
        return max(1, len(self.members) // self.ways)


class StoredTasks(AbstractHostSource):
    """As `Tasks`, of examples in a file that need not fit into memory.

    A `.npy` file is mapped into memory, and so is one array of an `.npz` file that is not
    compressed (`np.savez`). Only the examples of a step are read.

    Args:
        path: the file, with examples `(n, *s)` of floating-point numbers.
        labels: the class of each, `(n,)`, numbers or text.
        ways: as for `Tasks`.
        shots: as for `Tasks`.
        queries: as for `Tasks`.
        key: a JAX random key.
        batch_size: the number of tasks per step.
        name: of the array in an `.npz` file; by default its only one.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: as for `Tasks`; for a file that cannot be mapped; and in a fit for
            examples with missing values, when they are read.
    """

    path: str = eqx.field(static=True)
    members: Members
    center: Float[Array, "*s"]
    spread: Float[Array, "*s"]
    key: PRNGKeyArray
    ways: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)
    queries: int = eqx.field(static=True)
    batch_size: int = eqx.field(static=True)
    name: str | None = eqx.field(static=True)

    def __init__(
        self,
        path: str | Path,
        labels: Any,
        ways: int = 5,
        shots: int = 1,
        queries: int = 5,
        *,
        key: PRNGKeyArray,
        batch_size: int = 16,
        name: str | None = None,
    ):
        kind = "StoredTasks"
        self.ways, self.shots, self.queries, self.batch_size = _sizes(
            kind, ways, shots, queries, batch_size
        )
        self.key = as_key(key, f"{kind}(key=...)")
        self.path, self.name = str(path), name
        images = mapped(self.path, name)
        _refuse_no_examples(images.shape, f"{kind}({Path(path).name!r})")
        self.members = Members.of(
            labels, len(images), self.shots + self.queries, self.ways, kind
        )
        some = np.unique(np.linspace(0, len(images) - 1, SAMPLED).astype(int))
        found = as_array(images[some], f"{kind}({Path(path).name!r})")
        moments = _moments(np.asarray(found))
        self.center, self.spread = (jnp.asarray(m, found.dtype) for m in moments)

    def example(self):
        found = {name: a[0] for name, a in self.chunk(0, 1).items()}
        return Shots(**found, center=self.center, spread=self.spread)

    def chunk(self, first, count):
        rows = np.asarray(_rows_of_steps(self, first + jnp.arange(count)))
        every, place = np.unique(rows, return_inverse=True)
        read = mapped(self.path, self.name)[every]
        images = np.asarray(as_array(read, f"StoredTasks({Path(self.path).name!r})"))
        images = images[place.reshape(rows.shape)]
        return {
            "support": images[:, :, :, : self.shots],
            "query": images[:, :, :, self.shots :],
        }

    def num_rows(self):
        """As for `Tasks`."""
        return max(1, len(self.members) // self.ways)


@eqx.filter_jit
def _rows_of_step(members, key, step, ways, size, num) -> Int[Array, "b w k"]:
    keys = jax.random.split(jax.random.fold_in(key, step), num)
    return jax.vmap(lambda key: members.drawn(key, ways, size))(keys)


@eqx.filter_jit
def _rows_of_steps(tasks: StoredTasks, steps: Int[Array, " t"]) -> Int[Array, "t b w k"]:
    size = tasks.shots + tasks.queries

    def one(step):
        return _rows_of_step(
            tasks.members, tasks.key, step, tasks.ways, size, tasks.batch_size
        )

    return jax.vmap(one)(steps)


def _shots_of(images: Array, shots: int, center: Array, spread: Array) -> Shots:
    """Tasks of examples `(t, n, m, *s)`, not checked, because they may be traced."""
    data = object.__new__(Shots)
    arrays = {
        "support": images[:, :, :shots],
        "query": images[:, :, shots:],
        "center": center,
        "spread": spread,
    }
    for name, array in arrays.items():
        object.__setattr__(data, name, array)
    return data


def mapped(path: str, name: str | None = None) -> np.ndarray:
    """An array of a file, of which only those parts are read that are used.

    Args:
        path: a `.npy` file, or an `.npz` file without compression.
        name: of the array in an `.npz` file.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"`StoredTasks`: there is no file `{path}`.")
    what = f"StoredTasks({Path(path).name!r})"
    if zipfile.is_zipfile(path):
        found = _mapped_member(path, name, what)
    elif name is not None:
        raise ValueError(f"`{what}` is one array; leave `name={short(name)}` out.")
    else:
        try:
            found = np.load(path, mmap_mode="r", allow_pickle=False)
        except (ValueError, EOFError, OSError):
            raise ValueError(
                f"`{what}` is no file of NumPy; write one by `np.save` or `np.savez`."
            ) from None
    return found


def _mapped_member(path: str, name: str | None, what: str) -> np.ndarray:
    with zipfile.ZipFile(path) as archive:
        names = [one.removesuffix(".npy") for one in archive.namelist()]
        if name is None and len(names) != 1:
            raise ValueError(
                f"`{what}` has the arrays {', '.join(names)}; choose one by `name=`."
            )
        name = names[0] if name is None else name
        if name not in names:
            raise ValueError(
                f"`{what}` has no array {short(name)}; it has {', '.join(names)}."
            )
        info = archive.infolist()[names.index(name)]
        if info.compress_type != zipfile.ZIP_STORED:
            raise ValueError(
                f"`{what}` is compressed and cannot be mapped into memory; write it by "
                "`np.save` or `np.savez`."
            )
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        header = file.read(30)
        # The lengths of name and extra field of a local header of a zip file.
        skip = int.from_bytes(header[26:28], "little")
        skip += int.from_bytes(header[28:30], "little")
        file.seek(info.header_offset + 30 + skip)
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, fortran, dtype = read(file)
        offset = file.tell()
    if dtype.hasobject:
        raise ValueError(f"`{what}` holds objects; it takes real numbers.")
    return np.memmap(path, dtype, "r", offset, shape, "F" if fortran else "C")


def _sizes(kind: str, ways: Any, shots: Any, queries: Any, batch_size: Any):
    return (
        whole(f"{kind}(ways", 2)(ways),
        whole(f"{kind}(shots", 1)(shots),
        whole(f"{kind}(queries", 1)(queries),
        whole(f"{kind}(batch_size", 1)(batch_size),
    )


def _refuse_no_examples(shape: tuple[int, ...], what: str) -> None:
    if len(shape) < 2 or 0 in shape:
        raise ValueError(
            f"`{what}` has shape {shape}; for n examples of shape s it is (n, *s), such as "
            "(n, 28, 28) or (n, d)."
        )


def _labels(labels: Any, count: int, kind: str) -> np.ndarray:
    found = np.asarray(labels)
    if found.dtype.kind == "O":
        if not all(isinstance(one, str) for one in found.ravel()):
            raise ValueError(
                f"`{kind}(labels=...)` holds {short(next(iter(found.ravel()), None))} and "
                "others; it takes numbers or text."
            )
        found = found.astype(str)
    if found.shape != (count,):
        raise ValueError(
            f"`{kind}(labels=...)` has shape {found.shape} for {count} examples; give one "
            "label for each."
        )
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise ValueError(
            f"`{kind}(labels=...)` has {int((~np.isfinite(found)).sum())} labels that are "
            "NaN or infinite; drop those examples."
        )
    return found


def _moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and sd of each number over the examples; an sd of one if it is constant."""
    mean, sd = images.mean(0), images.std(0)
    constant = sd <= 1e-6 * np.abs(images).max(0, initial=0.0)
    return mean, np.where(constant, 1.0, sd)
