"""A run kept on disk, to be resumed: flat arrays and JSON, each file written whole.

A folder holds `run.json` (which run this is), `records-FROM-TO.npz` (the trace of these
steps) and `state-STEP.npz` (the state after this step). A state is written after the
pieces of the trace before it, and has their names. A kill at any moment therefore leaves
the last complete state valid. Files are written every `SECONDS`, and when a run ends or
is interrupted. Short pieces of the trace are joined, so that their number, and the number
of times that each entry is written, grow only with the logarithm of the number of steps.

Equal steps of a run give equal numbers. A file may therefore be written twice, by a
resumed run or by a second run at the same time.
"""

import contextlib
import hashlib
import json
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probkit.method.programs import fingerprint
from probkit.model.density import asked
from probkit.model.source import AbstractHostSource, AbstractSource, example_of
from probkit.record import UNFINISHED, Arrays, describe, versions, write_atomically

FORMAT = 2
# A kill loses about this much work at most.
SECONDS = 30.0
MARK = "probkit checkpoint"


def _is_typed(a) -> bool:
    return jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def _is_key(a) -> bool:
    return isinstance(a, jax.Array) and _is_typed(a)


def _flatten(tree) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf) if _is_key(leaf) else leaf
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _unflatten(like, arrays):
    """Arrays in the structure of `like`, whose leaves have a shape and a dtype only."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)

    def leaf(path, old):
        array = arrays[jax.tree_util.keystr(path)]
        known = jax.eval_shape(jax.random.key_data, old) if _is_typed(old) else old
        if (array.shape, array.dtype) != (known.shape, known.dtype):
            raise ValueError(f"{array.dtype}{array.shape} is no {known}")
        if _is_typed(old):
            impl = jax.random.key_impl(jnp.empty((), old.dtype))
            return jax.random.wrap_key_data(array, impl=impl)
        return jnp.asarray(array)

    return jax.tree_util.tree_unflatten(structure, [leaf(p, a) for p, a in leaves])


def _fingerprint(tree) -> str:
    # The structure holds what is not an array, such as the names of columns.
    digest = hashlib.sha256(str(jax.tree.structure(tree)).encode())
    for name, array in sorted(_flatten(tree).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _of_data(data: Any) -> str:
    if not isinstance(data, AbstractSource):
        return _fingerprint(data)
    # A description of the source, because its data are different in each step.
    plain = jax.tree.map(lambda a: jax.random.key_data(a) if _is_key(a) else a, data)
    arrays: Arrays = {}
    described = json.dumps(describe(plain, arrays))
    return hashlib.sha256((described + _fingerprint(arrays)).encode()).hexdigest()


def _program(model: Any, data: Any) -> str:
    key = jax.random.key(0)
    if isinstance(data, AbstractSource) and not isinstance(data, AbstractHostSource):
        # With what makes the data of a step.
        return fingerprint(
            lambda source, step, key: asked(model, source.at(step), key),
            data,
            jnp.zeros((), jnp.int32),
            key,
        )
    return fingerprint(partial(asked, model), example_of(data), key)


def save_arrays(path: Path, arrays: dict[str, Any]) -> None:
    """Write arrays, by name, as an `.npz` file that appears whole or not at all."""
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _load(path: Path) -> dict[str, np.ndarray]:
    try:
        with open(path, "rb") as raw, np.load(raw, allow_pickle=False) as file:
            return dict(file)
    except Exception as error:
        # An incomplete archive raises many kinds of errors.
        raise ValueError(f"{path} is no archive of arrays") from error


class Checkpoint:
    """The trace and the states of a run so far, in memory and, with a folder, on disk.

    Attributes:
        folder: where files are written, or None.
        states: the states to continue from, or None before the first step.
        taken: the number of steps taken.
        done: whether every lane has terminated.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.states: Any = None
        self.taken = 0
        self.done = False
        self._kept = time.monotonic()  # when files were last written
        self._pending = False
        self._chunks: list[tuple[Any, np.ndarray]] = []
        self._spans: list[tuple[int, int]] = []
        self._on_disk = 0  # how many of the spans are in files
        self._joined: list[tuple[int, int]] = []  # in files that are no longer needed

    @classmethod
    def open(cls, folder: Path | None, like, **identity) -> "Checkpoint":
        """Begin a run in `folder`, or resume the one that it holds.

        Args:
            folder: the folder, or None to keep the run in memory only.
            like: the shapes of the states.
            **identity: what has to be the same in a resumed run: `method`, `model`,
                `data`, `key`, `start` and `lanes`.

        Returns:
            The checkpoint, with the states of the run that it resumes.

        Raises:
            ValueError: if the folder holds another run, damaged files, or other files.
        """
        self = cls(folder)
        if folder is None:
            return self
        run = {
            MARK: FORMAT,
            "method": describe(identity["method"]),
            "model": describe(identity["model"]),
            "data": _of_data(identity["data"]),
            "key": _fingerprint(identity["key"]),
            "start": _fingerprint(identity["start"]),
            "lanes": repr(identity["lanes"]),
            "program": _program(identity["model"], identity["data"]),
            "versions": versions(),
        }
        marker = folder / "run.json"
        if not marker.exists():
            if folder.exists() and not _is_empty(folder):
                raise ValueError(
                    f"`checkpoint={str(folder)!r}` exists and holds no run of probkit; "
                    "name a new or an empty folder."
                )
            folder.mkdir(parents=True, exist_ok=True)
            text = json.dumps(run, indent=1)
            write_atomically(marker, lambda file: file.write(text.encode()))
            return self
        try:
            found = json.loads(marker.read_text())
            differs = [name for name in run if found[name] != run[name]]
            # Another model, or other data, always has another program.
            if {"model", "data"} & {*differs} and "program" in differs:
                differs.remove("program")
        except (ValueError, KeyError, TypeError):
            raise _damaged(marker) from None
        if differs:
            if differs == ["program"]:
                raise ValueError(
                    f"`checkpoint={str(folder)!r}` holds a run of another program: the "
                    "code of the model, or a value that it uses, has changed since. Name "
                    "another folder, or remove this one."
                )
            verb = "differs" if len(differs) == 1 else "differ"
            raise ValueError(
                f"`checkpoint={str(folder)!r}` holds another run: its "
                f"{', '.join(differs)} {verb}. Name another folder, or remove this one."
            )
        self._restore(like)
        return self

    def _restore(self, like) -> None:
        assert self.folder is not None
        states = sorted(self.folder.glob("state-*.npz"))
        if not states:
            return
        path = states[-1]
        try:
            arrays = _load(path)
            self.taken, done = (int(v) for v in arrays.pop("progress"))
            self.done = bool(done)
            self._spans = [(int(a), int(b)) for a, b in arrays.pop("spans")]
            self.states = _unflatten(like, arrays)
            self._on_disk = len(self._spans)
            for start, stop in self._spans:
                path = self._records(start, stop)
                kept = _load(path)
                counts = kept.pop("counts")
                self._chunks.append((kept, counts))
        except (KeyError, TypeError, ValueError):
            raise _damaged(path) from None

    def _records(self, start: int, stop: int) -> Path:
        assert self.folder is not None
        return self.folder / f"records-{start:09d}-{stop:09d}.npz"

    def add(self, kept: tuple[Any, np.ndarray] | None, states, taken, done) -> None:
        """Keep the trace of one chunk, and the states after it.

        Files are written every `SECONDS`, and when the run is done.

        Args:
            kept: a dict of arrays `[lane, step, ...]` and the number of steps per lane, or
                None for a chunk of the warm-up.
            states: the states after the chunk.
            taken: the number of steps so far.
            done: whether every lane has terminated.
        """
        if kept is not None:
            self._chunks.append(kept)
            self._spans.append((self.taken, taken))
        self.states, self.taken, self.done = states, taken, done
        self._pending = True
        if done or time.monotonic() - self._kept >= SECONDS:
            self.write()

    def write(self) -> None:
        """Write what is not yet in the folder, first the trace and then the state."""
        if self.folder is None or not self._pending:
            return
        before = list(self._spans)
        self._join()
        for (start, stop), (trace, counts) in zip(self._spans, self._chunks, strict=True):
            path = self._records(start, stop)
            if not path.exists():
                save_arrays(path, {**trace, "counts": counts})
        where = {
            "progress": np.array([self.taken, self.done]),
            "spans": np.array(self._spans, int).reshape(-1, 2),
        }
        save_arrays(
            self.folder / f"state-{self.taken:09d}.npz",
            {**_flatten(jax.device_get(self.states)), **where},
        )
        self._kept, self._pending = time.monotonic(), False
        for old in sorted(self.folder.glob("state-*.npz"))[:-1]:
            old.unlink(missing_ok=True)
        for span in {*before, *self._joined} - {*self._spans}:
            self._records(*span).unlink(missing_ok=True)
        self._joined.clear()
        self._on_disk = len(self._spans)

    @contextlib.contextmanager
    def interruptible(self) -> Iterator[None]:
        """A context that writes all files if the work inside is interrupted or fails."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(OSError):  # a full disk must not hide the first error
                self.write()
            raise

    def _join(self) -> None:
        """Join what is not on disk, then the last two while the earlier is not longer."""
        while len(self._spans) > 1:
            (a, b), (_, c) = self._spans[-2:]
            on_disk = len(self._spans) - 2 < self._on_disk
            if on_disk and b - a > c - b:
                return
            (left, left_counts), (right, right_counts) = self._chunks[-2:]
            both = {k: np.concatenate([left[k], right[k]], axis=1) for k in left}
            self._joined += self._spans[-2:]
            self._spans[-2:] = [(a, c)]
            self._chunks[-2:] = [(both, left_counts + right_counts)]
            self._on_disk = min(self._on_disk, len(self._spans) - 1)

    def collect(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The whole trace, `{name: array[lane, step, ...]}`, and the steps of each lane.

        Floating arrays are NaN after the last step of a lane.
        """
        if not self._chunks:
            return {}, np.zeros(0, int)
        counts = np.sum([counts for _, counts in self._chunks], axis=0)
        names = self._chunks[0][0]
        joined = {
            name: np.concatenate([trace[name] for trace, _ in self._chunks], axis=1)
            for name in names
        }
        steps = np.arange(next(iter(joined.values())).shape[1])
        over = steps[None, :] >= counts[:, None]
        return {name: _blank(array, over) for name, array in joined.items()}, counts


def _is_empty(folder: Path) -> bool:
    """Whether the folder has no files, except those that a kill left unfinished."""
    return folder.is_dir() and all(
        path.name.startswith(UNFINISHED) for path in folder.iterdir()
    )


def _damaged(path: Path) -> ValueError:
    return ValueError(
        f"`checkpoint={str(path.parent)!r}`: `{path.name}` in it is damaged; remove the "
        "folder to start again, or name another."
    )


def _blank(array: np.ndarray, over: np.ndarray) -> np.ndarray:
    if not over.any() or not np.issubdtype(array.dtype, np.floating):
        return array
    return np.where(over.reshape(over.shape + (1,) * (array.ndim - 2)), np.nan, array)
