"""A picture of which 60 % of the pixels are seen: errors and intervals of the others.

The photograph of `notebooks/image_from_few_numbers.py` on 24 by 24 pixels, with noise. Its
waves (the discrete cosine transform) have one variance per frequency and axis, or variances
that are a smooth function of frequency. `gp.Grid`, a product of two Matérn kernels, and
linear interpolation get the same pixels. Errors and intervals are those of the pixels that
were not seen, without noise.
"""

import argparse

import jax
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cbook import get_sample_data
from scipy.fft import idct
from scipy.interpolate import griddata
from scipy.stats import norm
from timing import machine, table, timed, write

import probkit as pk
from probkit.models import gp, sbl
from probkit.models.sbl.posterior import posterior
from probkit.models.sbl.updates import bound_step

SIZE, SEEN, NOISE_SD, LEVEL = 24, 0.6, 0.05, 0.9
WAVES = idct(np.eye(SIZE), norm="ortho", axis=0)
MODES = ("down", "across")
SMOOTH = sbl.smooth(np.log1p(np.arange(SIZE)), 6)
MODELS = {
    "free": sbl.KroneckerSBL(),
    "neighbours": sbl.KroneckerSBL(coupling=dict.fromkeys(MODES, 0.5)),
    "smooth": sbl.KroneckerSBL(coupling=dict.fromkeys(MODES, SMOOTH)),
}
TYPE_II = sbl.TypeII(prune=None, search=0, num_restarts=1, atol=0.1, max_steps=5000)
# Short, because each slope takes an eigenproblem of 340 rows.
NUTS = pk.NUTS(num_chains=1, num_warmup=80, num_samples=80, max_tree_depth=5)


def photograph() -> np.ndarray:
    """Pixels from 0 (black) to 1 (white)."""
    photo = plt.imread(get_sample_data("grace_hopper.jpg", asfileobj=False))
    grey, block = photo[20:404, 64:448].mean(axis=2) / 255, 384 // SIZE
    return grey.reshape(SIZE, block, SIZE, block).mean(axis=(1, 3))


def by_triangles(y, seen):
    at, everywhere = np.argwhere(seen), np.argwhere(np.ones_like(seen))
    linear, nearest = (
        griddata(at, y[seen], everywhere, kind) for kind in ("linear", "nearest")
    )
    return np.where(np.isnan(linear), nearest, linear).reshape(y.shape)


def by_waves(y, seen, key, name, method):
    """Mean and sd of each pixel, per draw."""
    data = sbl.Measurements(y, [WAVES, WAVES], modes=MODES, seen=seen)
    fitted = pk.fit(MODELS[name], data, method, key=key, throw=False)
    found = pk.predict(fitted, data, key=key, num_draws=100)
    return found["mean"].values[0], found["sd"].values[0]


def by_kernels(y, seen, key):
    at = np.arange(float(SIZE))
    data = gp.Grid(np.where(seen, y, np.nan), dict.fromkeys(MODES, at))
    model = gp.Regression(gp.Matern(on=MODES[0]) * gp.Matern(on=MODES[1]))
    fitted = pk.fit(model, data, pk.MAP(2, num_draws=100), key=key, throw=False)
    found = pk.predict(fitted, data, key=key)
    return found["mean"].values[0], found["sd"].values[0]


def scored(draws, image, unseen) -> dict[str, float]:
    """Root mean square error, share inside the intervals, and their half width."""
    mean, sd = draws
    below = norm.cdf((image - mean) / sd).mean(0)[unseen]
    inside = np.abs(below - 0.5) < LEVEL / 2
    spread = np.sqrt((sd**2).mean(0) + mean.var(0))[unseen]
    off = (mean.mean(0) - image)[unseen]
    return {
        "rms_error": float(np.sqrt(np.mean(off**2))),
        "coverage": float(inside.mean()),
        "mean_sd": float(spread.mean()),
    }


def seconds_of_a_step(size: int) -> dict[str, float]:
    """One step of the bound, on a square grid of which a part is seen."""
    rng = np.random.default_rng(0)
    matrix, y = rng.normal(size=(size, size)), rng.normal(size=(size, size))
    data = sbl.Measurements(y, [matrix] * 2, seen=rng.uniform(size=y.shape) < SEEN)
    model = sbl.KroneckerSBL()
    sites = model.flat_start(data)
    scales, noise = model.scales(sites, data), model.noise(sites, data)

    @jax.jit
    def step(scales, noise):
        post = posterior(data, scales.variance(), noise)
        return bound_step(scales, post, data)

    jax.block_until_ready(step(scales, noise))
    seconds, _ = timed(lambda: jax.block_until_ready(step(scales, noise)))
    return {"seen": len(data), **seconds}


def time_steps() -> None:
    where, rows = machine(), [seconds_of_a_step(size) for size in (24, 40, 58)]
    table(tuple(rows[0]), [tuple(row.values()) for row in rows])
    write("sbl_missing_steps", {"machine": where, "dtype": "float64", "steps": rows}, False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one set of pixels, no NUTS")
    parser.add_argument("--seeds", type=int, help="sets of pixels (default: 3)")
    parser.add_argument("--steps", action="store_true", help="time a step, and no more")
    args = parser.parse_args()
    pk.enable_x64()
    if args.steps:
        return time_steps()
    seeds = args.seeds or (1 if args.quick else 3)
    sides = {f"TypeII, {name}": (name, TYPE_II) for name in MODELS}
    if not args.quick:
        sides["NUTS, smooth"] = ("smooth", NUTS)
    where, image, results = machine(), photograph(), {}
    for seed in range(seeds):
        rng, key = np.random.default_rng(seed), jax.random.key(seed)
        seen = rng.uniform(size=image.shape) < SEEN
        y = image + NOISE_SD * rng.normal(size=image.shape)
        linear = (by_triangles(y, seen) - image)[~seen]
        rows = {"linear interpolation": {"rms_error": float(np.sqrt(np.mean(linear**2)))}}
        rows["gp.Grid, Matérn"] = scored(by_kernels(y, seen, key), image, ~seen)
        for side, (name, method) in sides.items():
            rows[side] = scored(by_waves(y, seen, key, name, method), image, ~seen)
        for side, row in rows.items():
            results.setdefault(side, []).append(row)
        print(f"pixels {seed}: done", flush=True)
    names = ("rms_error", "coverage", "mean_sd")
    means = {
        side: [np.mean([row.get(name, np.nan) for row in rows]) for name in names]
        for side, rows in results.items()
    }
    table(("method", *names), [(side, *row) for side, row in means.items()])
    write(
        "sbl_missing",
        {
            "machine": where,
            "dtype": "float64",
            "size": SIZE,
            "seen": SEEN,
            "noise_sd": NOISE_SD,
            "level": LEVEL,
            "steps_of_nuts": [NUTS.num_warmup, NUTS.num_samples],
            "methods": results,
        },
        args.quick,
    )


if __name__ == "__main__":
    main()
