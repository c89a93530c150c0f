"""Our fits of these tables, and their scores on rows that are held out."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import logsumexp
from scipy.stats import norm
from scipy.stats import t as student_t

from probkit.models.tucker.entries import Entries
from probkit.models.tucker.funbat.data import AIR, SIMULATED, Rows
from probkit.models.tucker.messages import MessagePassing
from probkit.models.tucker.model import CP
from probkit.models.tucker.modes import Smooth
from probkit.models.tucker.observations import AbstractObservation, StudentT

# Powers of concentrations, of which the evidence chooses one. Zero is the logarithm.
POWERS = (0.0, 0.25, 0.5, 1.0)
# Chosen by the evidence bound of the training rows of one fold of PM2.5, as was the noise.
RANK = 3
# Functions of weather and day need not be smooth, as in the paper.
ROUGH = tuple((k, Smooth(0.5)) for k in ("temp", "pres", "day"))
METHOD = MessagePassing(
    num_starts=2, max_steps=100, atol=1.0, num_draws=200, num_warmup=100
)
# To compare powers: their bounds differ by hundreds of nats.
SHORT = MessagePassing(
    num_starts=1, max_steps=40, atol=1.0, num_draws=1, draws="approximation"
)
EDGE = 0.05  # of a 90 % interval


class Scale(NamedTuple):
    """A power of concentrations, in units of their geometric mean.

    Attributes:
        power: the power; zero for the logarithm.
        unit: the geometric mean of the training rows; one where values have no zero.
        zero: the value of no concentration; zero where values have none.
    """

    power: float = 1.0
    unit: float = 1.0
    zero: float = 0.0

    @classmethod
    def of(cls, train: Rows, power: float) -> "Scale":
        if train.zero is None:
            return cls()
        unit = float(np.exp(np.log(train.y - train.zero).mean()))
        return cls(power, unit, train.zero)

    def forward(self, y: np.ndarray) -> np.ndarray:
        c = (y - self.zero) / self.unit
        return np.log(c) if self.power == 0 else c**self.power

    def back(self, value: np.ndarray) -> np.ndarray:
        if self.power == 0:
            c = np.exp(value)
        else:  # a concentration below zero is zero
            c = value if self.power == 1 else np.maximum(value, 0.0) ** (1 / self.power)
        return self.zero + self.unit * c

    def log_slope(self, y: np.ndarray) -> np.ndarray:
        """Log of the derivative of `forward`, to compare densities of powers."""
        c = (y - self.zero) / self.unit
        if self.power == 1:
            return np.full(np.shape(y), -np.log(self.unit))
        factor = 1.0 if self.power == 0 else self.power
        return np.log(factor) + (self.power - 1) * np.log(c) - np.log(self.unit)


class Predicted(NamedTuple):
    """Draws of the surface at rows that were held out, of a power of the values.

    Attributes:
        surface: `(draws, m)`.
        noise_sd: `(draws,)`.
        scale: the power.
        observation: the distribution of the noise.
        facts: of the fit.
    """

    surface: np.ndarray
    noise_sd: np.ndarray
    scale: Scale
    observation: AbstractObservation
    facts: dict[str, Any]

    def center(self) -> np.ndarray:
        """The values at the mean of the surface, `(m,)`.

        Powers of values with heavy tails have no mean.
        """
        return self.scale.back(self.surface.mean(0))

    def scores(self, y: np.ndarray) -> dict[str, float]:
        """Of the mixture of the draws: minus the log density, and coverage.

        Quantiles of so few draws would be too far inside, so that coverage counts the
        values whose probability under the mixture is between 5 and 95 %.
        """
        sd = self.noise_sd[:, None]
        z = (self.scale.forward(y) - self.surface) / sd
        unit = (
            student_t(self.observation.df)
            if isinstance(self.observation, StudentT)
            else norm
        )
        log_p = unit.logpdf(z) - np.log(sd)
        density = logsumexp(log_p, axis=0) - np.log(len(z)) + self.scale.log_slope(y)
        below = unit.cdf(z).mean(0)
        inside = (below > EDGE) & (below < 1 - EDGE)
        return {"nlpd": float(-density.mean()), "in_90": float(inside.mean())}


def modes_of(name: str, station: bool) -> dict[str, str | list[str]]:
    """The modes of a table, for `Entries.from_table`."""
    if name in SIMULATED:
        return {"s": "s", "t": "t"}
    if name == "us_temp":
        return {"place": ["lat", "lon_west"], "year": "year"}
    names = ["temp", "pres", "day"] + ["station"] * station
    return {one: one for one in names}


def model_of(name: str) -> CP:
    if name in SIMULATED:
        smooth = tuple((one, Smooth(2.5)) for one in ("s", "t"))
        return CP(rank=1, modes=smooth, effects=False)
    if name in AIR:
        return CP(rank=RANK, modes=ROUGH, observation=StudentT())
    return CP(rank=RANK)


def entries_of(train: Rows, scale: Scale, station: bool = True) -> tuple[Entries, Entries]:
    """The training entries, and entries at all rows of the table, without their values.

    The points are those of all rows. A point without entries changes nothing in the fit,
    and one compiled program fits all folds.
    """
    if train.table is None:
        raise ValueError("`train` is a whole table; give some of its rows, by `Rows.take`.")
    modes, value = modes_of(train.name, station), scale.forward(train.y)
    columns, whole = train.columns(), train.table.columns()
    # Priors are in the units of the training rows alone.
    units = Entries.from_table(columns | {"value": value}, modes, "value").units
    both = {k: np.concatenate([v, whole[k]]) for k, v in columns.items()}
    both["value"] = np.append(value, np.full(len(train.table), value.mean()))
    every = Entries.from_table(both, modes, "value", units=units)
    rows = jnp.arange(len(every))
    data, elsewhere = every.take(rows[: len(train)]), every.take(rows[len(train) :])
    assert isinstance(data, Entries)
    assert isinstance(elsewhere, Entries)
    return data, elsewhere


def power_of(train: Rows) -> float:
    """The power of `POWERS` with the highest evidence bound of the training rows."""
    import probkit as pk

    if train.zero is None:
        return 1.0
    bounds = {}
    for power in POWERS:
        scale = Scale.of(train, power)
        data, _ = entries_of(train, scale)
        fit = pk.fit(
            model_of(train.name),
            data,
            SHORT,
            key=jax.random.key(0),
            throw=False,
            progress=False,
        )
        bounds[power] = fit.facts["elbo"] + scale.log_slope(train.y).sum()
    return max(bounds, key=lambda power: bounds[power])


def predicted(
    train: Rows,
    test: Rows,
    power: float = 1.0,
    *,
    station: bool = True,
    method: MessagePassing = METHOD,
) -> Predicted:
    """Fit the training rows, and draw the surface at the others.

    Args:
        train: the training rows.
        test: rows that are held out, of which only the coordinates are read.
        power: of concentrations.
        station: whether the station is a mode.
        method: how it is fitted.
    """
    import probkit as pk

    if test.index is None:
        raise ValueError("`test` is a whole table; give some of its rows, by `Rows.take`.")
    scale, key = Scale.of(train, power), jax.random.key(0)
    data, whole = entries_of(train, scale, station)
    model = model_of(train.name)
    fit = pk.fit(model, data, method, key=key, throw=False, progress=False)
    drawn = pk.predict(fit, whole, key=key)["surface"].values[0]
    noise = fit.posterior["noise_sd"].values[0]
    return Predicted(drawn[:, test.index], noise, scale, model.observation, dict(fit.facts))
