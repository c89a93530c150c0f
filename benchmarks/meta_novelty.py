"""Size and power of `meta.novelty`: p-values of data sets that are, and are not, of a kind.

A mixture is fitted to sines and lines. New sines and lines have uniform p-values, if the
test has its size. Exponentials, sines of another frequency, and sines and lines with more
noise are not of the kind, and a share of them has a p-value below 0.05: the power.
"""

import argparse
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats
from timing import machine, table, timed, write

import probkit as pk
from probkit.models import meta


def features(x):
    return jnp.concatenate([jnp.sin(x), jnp.cos(x), x, jnp.ones_like(x)], -1)


def others(data, key):
    """Data sets of other kinds, at the same inputs."""
    key_rate, key_size, key_noise = jax.random.split(key, 3)
    x, shape = data.x[..., 0], (len(data), 1)
    rate = jax.random.uniform(key_rate, shape, minval=0.3, maxval=0.7)
    size = jax.random.uniform(key_size, shape, minval=0.2, maxval=1.0)
    noise = jax.random.normal(key_noise, x.shape)
    return {
        "exponentials": size * jnp.exp(rate * x) + 0.3 * noise,
        "sines of twice the frequency": 5 * size * jnp.sin(2 * x + 6 * rate) + 0.3 * noise,
        "noise of an sd of 0.6": data.y + jnp.sqrt(0.27) * noise,
        "noise of an sd of 0.9": data.y + jnp.sqrt(0.72) * noise,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer data sets and draws")
    args = parser.parse_args()
    pk.enable_x64()
    num_training, num_new = (300, 300) if args.quick else (2000, 2000)
    result = {"machine": machine(), "dtype": "float64", "training": num_training}
    rows = []
    for shots in (5, 10):
        source = meta.SineLine(jax.random.key(0), num_training, num_training, shots)
        data, key = source.at(0), jax.random.key(1)
        new = meta.SineLine(jax.random.key(2), num_new, num_new, shots).at(0)
        for kinds in (1, 2):
            model = meta.Linear(num_components=kinds, features=features)
            method = meta.Episodic(num_draws=200 if args.quick else 1000)
            fitted = pk.fit(model, data, method, key=key, throw=False)
            every = {"of the kind": new.y, **others(new, jax.random.key(3))}
            for name, y in every.items():
                seconds, found = timed(
                    partial(meta.novelty, fitted, new.replaced({"y": y}), key=key)
                )
                p = found["p_value"].values
                of_one = {
                    "below_0.05": float((p < 0.05).mean()),
                    "below_0.01": float((p < 0.01).mean()),
                    "uniform_p": float(stats.kstest(p, "uniform").pvalue),
                    "wall_s": seconds["wall_s"],
                    "deciles": np.quantile(p, np.linspace(0, 1, 11)).tolist(),
                }
                result[f"{shots} points, {kinds} kinds, {name}"] = of_one
                rows.append((shots, kinds, name, *list(of_one.values())[:3]))
    table(("points", "kinds", "data sets", "p < 0.05", "p < 0.01", "uniform"), rows)
    write("meta_novelty", result, args.quick)


if __name__ == "__main__":
    main()
