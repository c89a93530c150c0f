"""Errors of the authors' code, and ours on the same tables."""

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from probkit.models.tucker.funbat import fits
from probkit.models.tucker.funbat.data import (
    AIR,
    FILES,
    SIMULATED,
    Rows,
    is_missing,
    read,
)


class Theirs(NamedTuple):
    """A run of the authors' code.

    Attributes:
        error: root mean square error, over the held-out rows.
        what: the model, and on which rows.
    """

    error: float
    what: str


# Measured with the authors' code (PyTorch) and the settings of its `config` folder. The
# tables of the paper itself could not be checked.
AUTHORS: dict[str, Theirs] = {
    "surface": Theirs(0.0042, "CP, rank 1, of their own points"),
    "pm25": Theirs(0.297, "CP, rank 2, mean of 5 folds"),
    "pm10": Theirs(0.4311, "CP, rank 2, fold 0, 60 of 100 sweeps"),
    "so2": Theirs(0.4010, "CP, rank 2, fold 0, 60 of 150 sweeps"),
    "us_temp": Theirs(1.259, "CP, rank 1, fold 0"),
}
QUICK = ("surface", "pm25")

ABOUT = """\
FunBaT, functional Bayesian Tucker decomposition (Fang et al. 2024, arXiv 2311.04829): root
mean square errors on held-out rows, of the authors' code and ours, on the published folds.

The models differ. Ours have main effects and learned kernels, the station is a mode of the
air quality, and the evidence of the training rows chooses a power of concentrations.
"""
LEGEND = """\
authors      their code with their settings, measured once, on the rows of the last column;
             the tables of the paper could not be checked.
day mean     the mean of the training rows of the same day or year.
NLPD         minus the log density of the held-out rows, in nats per row.
in 90 %      share of the held-out rows inside the 90 % interval.
s            seconds of processor per fold, with compilation in the first.
Errors of pollutants are in sds of their column, those of us_temp in degrees Fahrenheit.\
"""


class Outcome(NamedTuple):
    """Means over the folds of one table.

    Attributes:
        name: of the table.
        folds: how many.
        error: ours, root mean square.
        day_mean: that of the mean of the day.
        nlpd: minus the log density, in nats per row.
        in_90: share of the values in the 90 % interval.
        powers: of concentrations, one per fold.
        seconds: of processor.
    """

    name: str
    folds: int
    error: float
    day_mean: float
    nlpd: float
    in_90: float
    powers: tuple[float, ...]
    seconds: float


def day_mean(train: Rows, test: Rows) -> np.ndarray:
    """The mean of the training rows of the same day; of all rows for a day without any."""
    count = np.bincount(train.day, minlength=test.day.max() + 1)
    total = np.bincount(train.day, train.y, minlength=len(count))
    means = np.where(count > 0, total / np.maximum(count, 1), train.y.mean())
    return means[test.day]


def attempt(folder: Path | None, name: str, num_folds: int = 5) -> Outcome:
    """Fit the published folds of a table, and predict their held-out rows.

    Needs float64, as `pk.enable_x64()` sets it.

    Args:
        folder: the folder of the tables.
        name: of the table.
        num_folds: the number of folds.

    Raises:
        ValueError: as `data.read`.
    """
    table = read(folder, name)
    rows, found = table.rows, []
    for fold in range(num_folds):
        kept, held = table.split("published", fold)
        train, test = rows.take(kept), rows.take(held, hide=True)
        y = rows.y[held] if table.truth is None else table.truth[held]
        begun = time.process_time()
        power = fits.power_of(train)
        predicted = fits.predicted(train, test, power)
        scores = predicted.scores(rows.y[held])
        seconds = time.process_time() - begun
        errors = [_length(predicted.center() - y), _length(day_mean(train, test) - y)]
        found.append((*errors, scores["nlpd"], scores["in_90"], power, seconds))
    error, other, nlpd, in_90, _, each_s = np.mean(found, axis=0).tolist()
    powers = tuple(one[4] for one in found)
    return Outcome(name, num_folds, error, other, nlpd, in_90, powers, each_s)


def rows(folder: Path | None, names: Sequence[str], num_folds: int = 5) -> Iterator[str]:
    """The lines of the table, each as soon as it is known; and one for what is missing.

    Args:
        folder: the folder of the tables; None for the simulated ones alone.
        names: of the tables.
        num_folds: the number of folds.
    """
    heads = ("table", "folds", "authors", "day mean", "ours", "NLPD", "in 90 %", "s")
    yield _line(*heads, "rows of the authors")
    missing = [name for name in names if is_missing(folder, name)]
    for name in names:
        if name not in missing:
            yield line(attempt(folder, name, num_folds))
    if missing:
        files = " and ".join(f"`{file}`" for file in dict.fromkeys(map(FILES.get, missing)))
        where = "no `--data`" if folder is None else f"`--data {folder}` lacks them"
        yield (
            f"not run: {', '.join(missing)}, which need the folder of {files} ({where}); "
            "benchmarks/README.md describes the files."
        )


def line(found: Outcome) -> str:
    theirs = AUTHORS.get(found.name)
    return _line(
        found.name,
        str(found.folds),
        "" if theirs is None else f"{theirs.error:.4f}",
        f"{found.day_mean:.4f}",
        f"{found.error:.1e}" if found.error < 1e-3 else f"{found.error:.4f}",
        f"{found.nlpd:.3f}",
        f"{found.in_90:.3f}",
        f"{found.seconds:.0f}",
        "" if theirs is None else theirs.what,
    )


def chosen(only: str | None, quick: bool) -> tuple[str, ...]:
    """The tables asked for.

    Args:
        only: names separated by commas, or None.
        quick: whether to choose two only, if `only` is None.

    Raises:
        ValueError: for a name that no table has.
    """
    known = (*SIMULATED, *AIR, "us_temp")
    if only is None:
        return QUICK if quick else known
    names = tuple(filter(None, (name.strip() for name in only.split(","))))
    unknown = [name for name in names if name not in known]
    if unknown or not names:
        raise ValueError(
            f"`--only {only}`: the tables are {', '.join(known)}; give one or more, "
            "separated by commas."
        )
    return names


def _length(errors: np.ndarray) -> float:
    return float(np.sqrt(np.mean(errors**2)))


def _line(*cells: str) -> str:
    widths = (13, 5, 7, 8, 7, 6, 7, 4, 0)
    padded = (f"{one:<{width}}" for one, width in zip(cells, widths, strict=True))
    return "  ".join(padded).rstrip()
