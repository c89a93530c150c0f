"""Temporal regression of many values: fit and predict, beside fixed waves and GPJax.

A function with a Matérn-3/2 kernel of 50 lengthscales is observed with noise at random
times. Each side estimates its kernel by one search from its own start, and predicts the
function at 1,000 times that were not observed. Each side has a process of its own, which
is ended after `LIMIT` seconds, so that a run takes less than six minutes.
"""

import argparse
import json
import subprocess
import sys
import time

import numpy as np
import timing

LIMIT = 110  # seconds per side
NEW = 1000
SIDES = ("temporal", "waves", "gpjax")
LENGTHS, SD, NOISE = 50, 1.0, 0.3


def data(n: int):
    """Times, values, new times, and the function there: sorted, and drawn exactly."""
    import jax
    import jax.numpy as jnp

    from probkit.gp import state_space

    rng = np.random.default_rng(0)
    t = np.sort(rng.uniform(0, LENGTHS, n + NEW))
    white = jnp.asarray(rng.normal(size=(len(t), 2)))
    process = state_space.Matern(1.5, 1.0, SD**2)
    f = np.asarray(jax.jit(state_space.color)(process, jnp.asarray(t), white))[:, 0]
    new = np.zeros(len(t), bool)
    new[rng.choice(len(t), NEW, replace=False)] = True
    y = f + NOISE * rng.normal(size=len(t))
    return t[~new], y[~new], t[new], f[new]


def by_probkit(t, y, new, side: str):
    import jax

    import probkit as pk
    from probkit.models import gp

    key = jax.random.key(0)
    # The units look for waves in a sample of the values, which is a part of each fit.
    clock = time.perf_counter()
    kernel = gp.Matern(1.5)
    model, given = {
        "temporal": lambda: (gp.Temporal(kernel), gp.Series(t, y)),
        "waves": lambda: (gp.Regression(kernel), gp.Observed(t, y, num_waves=600)),
    }[side]()
    made = time.perf_counter()
    fit = pk.fit(model, given, pk.MAP(1), key=key, throw=False)
    fitted = time.perf_counter()
    ahead = pk.predict(fit, new, key=key)
    seconds = {"data": made - clock, "fit": fitted - made}
    seconds["predict"] = time.perf_counter() - fitted
    found = {k: float(v) for k, v in fit.sites().items()}
    mean, sd = (np.asarray(ahead[k]).reshape(-1) for k in ("mean", "sd"))
    return mean, sd, {"seconds": seconds, "sites": found, "result": fit.result}


def by_gpjax(t, y, new):
    import gpjax as gpx
    from gpjax.state_space import StateSpacePrior, fit_lbfgs

    clock = time.perf_counter()
    center, scale = y.mean(), y.std()
    train = gpx.Dataset(X=t[:, None], y=(y - center)[:, None] / scale)
    prior = StateSpacePrior(
        mean_function=gpx.mean_functions.Zero(),
        kernel=gpx.kernels.Matern32(lengthscale=1.0, variance=1.0),
    )
    likelihood = gpx.likelihoods.Gaussian(obs_stddev=0.5)
    fitted, _ = fit_lbfgs(model=prior * likelihood, train_data=train, max_iters=50)
    done = time.perf_counter()
    known = fitted.predict(new[:, None], train_data=train)
    mean = np.asarray(known.mean) * scale + center
    sd = np.sqrt(np.asarray(known.variance)) * scale
    seconds = {"fit": done - clock, "predict": time.perf_counter() - done}
    return mean, sd, {"seconds": seconds}


def one(side: str, n: int):
    """One side, in this process."""
    import probkit as pk

    pk.enable_x64()
    t, y, new, truth = data(n)
    if side == "gpjax":
        mean, sd, facts = by_gpjax(t, y, new)
    else:
        mean, sd, facts = by_probkit(t, y, new, side)
    z = (truth - mean) / sd
    return facts | {
        "root_mean_square_error": float(np.sqrt(np.mean((truth - mean) ** 2))),
        "inside_90": float(np.mean(np.abs(z) < 1.645)),
        "mean_sd": float(sd.mean()),
    }


def beside(side: str, n: int):
    """One side in a process of its own; what went wrong, if it did not end."""
    command = [sys.executable, __file__, "--side", side, "--values", str(n)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=LIMIT, check=True
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {LIMIT} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": error.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=float, default=1e6)
    parser.add_argument("--quick", action="store_true", help="2,000 values")
    parser.add_argument("--side", choices=SIDES, help="one side, printed")
    given = parser.parse_args()
    n = 2000 if given.quick else int(given.values)
    if given.side:
        print(json.dumps(one(given.side, n)))
        return
    facts = {"machine": timing.machine(), "values": n, "limit_s": LIMIT}
    result = facts | {"sides": {side: beside(side, n) for side in SIDES}}
    print(json.dumps(result, indent=2))
    timing.write("gp_temporal", result, given.quick)


if __name__ == "__main__":
    main()
