"""Simulation-based calibration of functional CP and Tucker models.

Draws are by Gibbs sampling, and then of the approximation of message passing, whose
intervals are known to be too narrow. The scales of the priors are those of one data set for
all rounds. The ranked quantities do not depend on the order or sign of components. See
`sbc.py`.
"""

import numpy as np
import sbc

from probkit.models import tucker

MODELS = {
    "CP(1)": tucker.CP(1),
    "CP(2)": tucker.CP(2),
    "Tucker(2, 1)": tucker.Tucker((2, 1)),
}
rng = np.random.default_rng(0)
ENTRIES = 60
TIMES, STATIONS = np.sort(rng.uniform(0, 10, 8)), np.array(list("abcde"))
# Every time and station once, and others at random.
COORDS = {
    name: values[np.r_[: len(values), rng.integers(0, len(values), ENTRIES - len(values))]]
    for name, values in {"time": TIMES, "station": STATIONS}.items()
}
LIKE = tucker.Entries(COORDS, rng.normal(size=ENTRIES))
# A point of the data, a time between them, one beyond, and a station that they lack.
ASKED = tucker.queries(
    LIKE, {"time": [TIMES[3], 5.0, 12.0, 5.0], "station": ["b", "b", "b", "new"]}
)
PLACES = ("seen", "between", "beyond", "of a new station")


def quantities(model: tucker.CP | tucker.Tucker):
    """The ranked quantities of one draw."""

    def of_one(sites, data, key):
        surface = model.predict(sites, (ASKED, data), key)["surface"]
        names = ["noise_sd", "level", "lengthscale_time", "sd_effect_time"]
        found = {name: sites[name] for name in names}
        found |= {f"surface {place}": surface[i] for i, place in enumerate(PLACES)}
        f = model.recover(sites, data, key)["surface"]
        likelihood = model.observation.likelihood(f, sites["noise_sd"])
        return found | {"log likelihood": likelihood.log_prob(data.y).sum()}

    return of_one


def calibrate(simulations: int, method, ranked: int, seed: int, models=tuple(MODELS)):
    every: tuple[sbc.Ranks, sbc.Ranks] = ({}, {})
    for name in models:
        found = sbc.calibrate(
            MODELS[name],
            LIKE,
            lambda y: tucker.Entries(COORDS, y, units=LIKE.units),
            quantities(MODELS[name]),
            simulations=simulations,
            method=method,
            ranked=ranked,
            seed=seed,
        )
        for whole, part in zip(every, found, strict=True):
            whole |= {f"{name}: {key}": values for key, values in part.items()}
    return every


def gibbs(quick: bool) -> tucker.MessagePassing:
    num = 500 if quick else 1512
    return tucker.MessagePassing(num_starts=2, num_draws=num, num_warmup=500)


def approximation(quick: bool) -> tucker.MessagePassing:
    return tucker.MessagePassing(num_starts=2, num_draws=63, draws="approximation")


if __name__ == "__main__":
    methods = {"": gibbs, "_approximation": approximation}
    sbc.study("sbc_tucker", __doc__.splitlines()[0], calibrate, methods)
