"""A run kept on disk while it goes on: flat arrays and JSON, each file written whole.

A folder holds `run.json` (which run this is), `records-*.npz` (what each chunk kept) and
`state-*.npz` (where the run stands). A state is written after the records that lead to
it, and it counts them: a kill at any moment leaves the last complete state in force.
"""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from probkit.files import write_atomically
from probkit.record import describe, versions

FORMAT = 1


def _is_key(a) -> bool:
    return isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key)


def _flatten(tree) -> dict[str, np.ndarray]:
    return {
        jax.tree_util.keystr(path): np.asarray(
            jax.random.key_data(leaf) if _is_key(leaf) else leaf
        )
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def _unflatten(like, arrays):
    """Arrays in the structure of `like`, whose leaves have only shape and dtype."""
    leaves, structure = jax.tree_util.tree_flatten_with_path(like)

    def leaf(path, old):
        array = arrays[jax.tree_util.keystr(path)]
        if jnp.issubdtype(old.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(array, impl=jax.random.key_impl(old))
        return jnp.asarray(array)

    return jax.tree_util.tree_unflatten(structure, [leaf(p, a) for p, a in leaves])


def _fingerprint(tree) -> str:
    digest = hashlib.sha256()
    for name, array in sorted(_flatten(tree).items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def _save(path: Path, arrays: dict[str, Any]) -> None:
    write_atomically(path, lambda file: np.savez(file, **arrays))


def _load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


class Checkpoint:
    """What a run has kept so far, in memory and, if there is a folder, on disk.

    Attributes:
        states: the states to go on from, or None before the first step.
        taken: how many steps were taken.
        done: whether every lane had terminated.
    """

    def __init__(self, folder: Path | None):
        self.folder = folder
        self.states: Any = None
        self.taken = 0
        self.done = False
        self._chunks: list[tuple[Any, np.ndarray]] = []

    @classmethod
    def open(cls, folder: Path | None, like, **identity) -> "Checkpoint":
        """Begin a run in `folder`, or go on with the one that stands there.

        Raises:
            ValueError: if the folder holds another run, or files that are not ours.
        """
        self = cls(folder)
        if folder is None:
            return self
        run = {
            "probkit checkpoint": FORMAT,
            "method": describe(identity["method"]),
            "model": describe(identity["model"]),
            "data": _fingerprint(identity["data"]),
            "key": _fingerprint(identity["key"]),
            "start": _fingerprint(identity["start"]),
            "lanes": repr(identity["lanes"]),
            "versions": versions(),
        }
        marker = folder / "run.json"
        if not marker.exists():
            if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
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
        except ValueError as error:
            raise ValueError(
                f"`{marker}` is damaged ({error}); remove the folder."
            ) from None
        differs = [name for name in run if found.get(name) != run[name]]
        if differs:
            raise ValueError(
                f"`checkpoint={str(folder)!r}` holds another run: its "
                f"{', '.join(differs)} differ. Name another folder, or remove this one."
            )
        self._restore(like)
        return self

    def _restore(self, like) -> None:
        assert self.folder is not None
        states = sorted(self.folder.glob("state-*.npz"))
        if not states:
            return
        try:
            arrays = _load(states[-1])
            taken, done, chunks = (int(v) for v in arrays.pop("progress"))
            for number in range(chunks):
                kept = _load(self._records(number))
                counts = kept.pop("counts")
                self._chunks.append(({k: v for k, v in kept.items()}, counts))
            self.states = _unflatten(like, arrays)
        except (OSError, KeyError, ValueError, EOFError) as error:
            raise ValueError(
                f"The checkpoint in {str(self.folder)!r} is damaged ({error}); "
                "remove the folder to begin anew."
            ) from None
        self.taken, self.done = taken, bool(done)

    def _records(self, number: int) -> Path:
        assert self.folder is not None
        return self.folder / f"records-{number:06d}.npz"

    def add(self, kept: tuple[Any, np.ndarray] | None, states, taken, done) -> None:
        """Keep a chunk's records, a dict of arrays, then the states it led to."""
        if kept is not None:
            self._chunks.append(kept)
        if self.folder is None:
            return
        if kept is not None:
            records, counts = kept
            _save(self._records(len(self._chunks) - 1), {**records, "counts": counts})
        progress = np.array([taken, done, len(self._chunks)])
        _save(
            self.folder / f"state-{taken:09d}.npz",
            {**_flatten(jax.device_get(states)), "progress": progress},
        )
        for old in sorted(self.folder.glob("state-*.npz"))[:-1]:
            old.unlink()

    def collect(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """All records, joined along the steps, and each lane's number of steps."""
        if not self._chunks:
            return {}, np.zeros(0, int)
        counts = np.sum([counts for _, counts in self._chunks], axis=0)
        names = self._chunks[0][0]
        joined = {
            name: np.concatenate([records[name] for records, _ in self._chunks], axis=1)
            for name in names
        }
        steps = np.arange(next(iter(joined.values())).shape[1])
        over = steps[None, :] >= counts[:, None]
        return {name: _blank(array, over) for name, array in joined.items()}, counts


def _blank(array: np.ndarray, over: np.ndarray) -> np.ndarray:
    if not over.any() or not np.issubdtype(array.dtype, np.floating):
        return array
    return np.where(over.reshape(over.shape + (1,) * (array.ndim - 2)), np.nan, array)


Writer = Callable[[Any], object]
