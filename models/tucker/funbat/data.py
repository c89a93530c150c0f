"""The tables of the paper: air quality, land temperature, and a simulated surface."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

AIR = ("pm25", "pm10", "so2")
SIMULATED = ("surface", "noisy surface")
SPLITS = ("published", "distinct", "days", "stations")
# Of the simulated surface: grids, points along each side of a grid, sd of the noise.
GRIDS, SIDE, NOISE = 6, 15, 0.02
FILES = dict.fromkeys(AIR, "beijing_daily.npz") | {"us_temp": "us_temp.npz"}


@dataclass(frozen=True, eq=False)
class Rows:
    """Rows of a table.

    Attributes:
        name: of the table.
        x: coordinates of the modes of the paper, `(n, k)`, in their own units.
        day: the number of the day, or year.
        station: the number of the station.
        y: the values; NaN for rows that are held out.
        low: the ends of the coordinates in the whole table, `(k,)`.
        high: the other ends.
        zero: the value of nothing at all, for concentrations; None for other values.
        index: the number of each row in the whole table; None for the whole table.
        table: all rows of that table, without values; None for the whole table.
    """

    name: str
    x: np.ndarray
    day: np.ndarray
    station: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    zero: float | None
    index: np.ndarray | None = None
    table: "Rows | None" = None

    def __len__(self) -> int:
        return len(self.y)

    def scaled(self) -> np.ndarray:
        """The coordinates in units of their ranges."""
        return (self.x - self.low) / (self.high - self.low)

    def take(self, index: np.ndarray, *, hide: bool = False) -> "Rows":
        """Some rows, with their values or without."""
        y = np.full(len(index), np.nan) if hide else self.y[index]
        table = replace(self, y=np.full(len(self), np.nan))
        found = replace(
            self, x=self.x[index], day=self.day[index], station=self.station[index], y=y
        )
        if self.index is None or self.table is None:
            return replace(found, index=index, table=table)
        return replace(found, index=self.index[index])

    def columns(self) -> dict[str, np.ndarray]:
        """One column per coordinate, as `tucker.Entries.from_table` takes them."""
        if self.name in SIMULATED:
            return {"s": self.x[:, 0], "t": self.x[:, 1]}
        if self.name == "us_temp":
            return dict(zip(("lat", "lon_west", "year"), self.x.T, strict=True))
        station = np.char.add("station ", self.station.astype(str))
        return dict(zip(("temp", "pres", "day"), self.x.T, strict=True)) | {
            "station": station
        }


@dataclass(frozen=True, eq=False)
class Table:
    """A table and its published folds.

    Attributes:
        rows: all rows.
        folds: permutations of the rows, `(folds, n)`.
        num_train: how many rows of a permutation are for training; the others are held out.
        truth: the surface at each row, if it is known.
    """

    rows: Rows
    folds: np.ndarray
    num_train: int
    truth: np.ndarray | None = None

    def split(self, kind: str, fold: int) -> tuple[np.ndarray, np.ndarray]:
        """Numbers of the training rows and of the rows that are held out.

        All splits have as many training rows as the published folds, so that one compiled
        program fits them all; of the rows that this leaves some are used by none.

        Args:
            kind: "published"; or "distinct", "days" or "stations", where whole groups of
                rows are held out: those with equal coordinates, of a day or of a station.
            fold: the number of the fold.
        """
        if kind == "published":
            order = self.folds[fold]
            return order[: self.num_train], order[self.num_train :]
        rows, rng = self.rows, np.random.default_rng(1000 + fold)
        if kind == "distinct":
            group = np.unique(rows.x, axis=0, return_inverse=True)[1].reshape(-1)
        else:
            group = rows.day if kind == "days" else rows.station
        room, chosen, sizes = len(rows) - self.num_train, [], np.bincount(group)
        for one in rng.permutation(np.flatnonzero(sizes)):
            if sizes[one] <= room:
                chosen.append(one)
                room -= sizes[one]
        held = np.isin(group, chosen)
        kept = rng.permutation(np.flatnonzero(~held))[: self.num_train]
        return np.sort(kept), np.flatnonzero(held)


def is_missing(folder: Path | None, name: str) -> bool:
    """Whether a table needs a file that the folder lacks."""
    return name in FILES and (folder is None or not (folder / FILES[name]).exists())


def read(folder: Path | None, name: str) -> Table:
    """A table: "pm25", "pm10", "so2" or "us_temp" of a folder, or a simulated surface.

    Args:
        folder: the folder of the files; none is needed for "surface" and "noisy surface".
        name: the name of the table.

    Raises:
        ValueError: if the folder lacks the file.
    """
    if name in SIMULATED:
        return simulated(noise=NOISE if name.startswith("noisy") else 0.0)
    if folder is None or is_missing(folder, name):
        raise ValueError(
            f"`{name}` needs `{FILES[name]}`, which is not part of probkit, and not in "
            f"`{folder}`; give its folder as `--data`. benchmarks/README.md describes it."
        )
    with np.load(folder / FILES[name], allow_pickle=False) as file:
        found = {k: file[k] for k in file}
    zero = None
    if name == "us_temp":
        x = np.stack([found[k].astype(float) for k in ("lat", "lon_west", "year")], 1)
        place = np.unique(x[:, :2], axis=0, return_inverse=True)[1].reshape(-1)
        day, y = found["year"] - found["year"].min(), found["temp_f"].astype(float)
        folds = found["folds"]
    else:
        temp, pres = (np.round(found[k], 1) for k in ("temp", "pres"))
        x = np.stack([temp, pres, found["day"].astype(float)], 1)
        place, day, y = found["station"], found["day"], found[name].astype(float)
        center, scale = y.mean(), y.std(ddof=1)
        y, zero = (y - center) / scale, float(-center / scale)  # as published
        folds = found[f"folds_{name}"]
    rows = Rows(name, x, day.astype(int), place.astype(int), y, x.min(0), x.max(0), zero)
    return Table(rows, folds.astype(int), int(found["n_train"]))


def surface(s: Any, t: Any, xp: Any = np) -> Any:
    """The paper's surface of rank one, by the functions of NumPy or of `jax.numpy`."""
    wave = xp.sin(2 * xp.pi * s) ** 2 * xp.cos(2 * xp.pi * s)
    return wave * xp.exp(-2 * t) * xp.sin(1.5 * xp.pi * t)


def simulated(noise: float = 0.0, num_folds: int = 5) -> Table:
    """The paper's simulation: six grids of 15 by 15 uniform points, half for training.

    Args:
        noise: its sd. The authors' file has none.
        num_folds: the number of folds.
    """
    rng = np.random.default_rng(0)
    points = []
    for _ in range(GRIDS):
        s, t = rng.uniform(size=(2, SIDE))
        points.append(np.stack([a.ravel() for a in np.meshgrid(s, t)], 1))
    x = np.concatenate(points)
    truth = surface(*x.T)
    y = truth + noise * rng.normal(size=len(truth))
    none = np.zeros(len(y), int)
    name = SIMULATED[1] if noise else SIMULATED[0]
    rows = Rows(name, x, none, none, y, np.zeros(2), np.ones(2), None)
    folds = np.stack([rng.permutation(len(y)) for _ in range(num_folds)])
    return Table(rows, folds, len(y) // 2, truth)
