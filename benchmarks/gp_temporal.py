"""Temporal regression of many values: against length, dense matrices, waves and GPJax.

A function with a Matérn-3/2 kernel of 50 lengthscales is observed with noise at random
times. Each side estimates its kernel by one search from its own start, and predicts the
function at 1,000 times that were not observed. Each side has a process of its own, which
is ended after `LIMIT` seconds, so that a run takes less than ten minutes.

Besides, the log density with its gradient is timed against length for normal, Student-t and
Poisson observations, and a prediction for normal ones, once they are compiled. The slope is
that of the log of the processor time over log length. With few values, evidence, means and
sds are compared with those of `gp.Regression`, which has the dense covariance.
"""

import argparse
import functools
import json
import subprocess
import sys
import time

import numpy as np
import timing

LIMIT, LENGTHS_LIMIT = 80, 300  # seconds per side, and for all lengths
NEW = 1000
SIDES = ("temporal", "waves", "gpjax")
CHECKS = {"lengths": lambda n: against_length(n), "dense": lambda n: against_dense(DENSE)}
DENSE = 1000  # values
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


def against_length(most: int):
    """Seconds of one evaluation and of one prediction, and their slopes."""
    import jax

    import probkit as pk
    from probkit.model.density import log_densities
    from probkit.models import gp

    pk.enable_x64()
    rng, rows = np.random.default_rng(1), []
    kinds = {"normal": gp.Normal(), "student_t": gp.StudentT(), "poisson": gp.Poisson()}
    lengths = [n for n in (10_000, 100_000, 1_000_000) if n <= most] or [most]
    for kind, observations in kinds.items():
        model = gp.Temporal(gp.Matern(1.5), observations)
        sites = {"level": 0.0, "sd_matern": SD, "lengthscale_matern": 1.0}
        sites |= {} if kind == "poisson" else {"noise_sd": NOISE}
        sites = {k: np.asarray(v) for k, v in sites.items()}
        for n in lengths:
            t, y, new, _ = data(n)
            series = gp.Series(t, rng.poisson(np.exp(y)) if kind == "poisson" else y)

            def density(sites, series, model=model):
                return sum(log_densities(model, series, sites))

            both = jax.jit(jax.value_and_grad(density))
            calls: dict[str, tuple] = {"density": (both, (sites, series))}
            if kind == "normal":  # for others it is the same program
                inputs = model.inputs(new, series)
                args = sites, inputs, jax.random.key(0)
                calls["predict"] = jax.jit(model.predict), args
            for name, (function, args) in calls.items():
                clock = time.perf_counter()
                program = function.lower(*args).compile()
                compile_s = time.perf_counter() - clock
                run = lambda p=program, a=args: jax.block_until_ready(p(*a))  # noqa: E731
                run()
                repeats = 3 if n < 1_000_000 else 1
                times = [timing.timed(run)[0] for _ in range(repeats)]
                row = {"observations": kind, "values": n, "what": name}
                row |= {clock: timing.median(times, clock) for clock in times[0]}
                temporary = program.memory_analysis().temp_size_in_bytes / 1e9
                rows.append(row | {"compile_s": compile_s, "temp_gb": temporary})
    slopes = []
    for kind in kinds:
        for name in ("density", "predict"):
            same = [r for r in rows if (r["observations"], r["what"]) == (kind, name)]
            if len(same) > 1:
                sides = [np.log([r[k] for r in same]) for k in ("values", "cpu_s")]
                slope = float(np.polyfit(*sides, 1)[0])
                slopes.append({"observations": kind, "what": name, "slope": slope})
    return {"rows": rows, "slopes": slopes}


def against_dense(n: int):
    """The largest differences from dense matrices."""
    import jax

    import probkit as pk
    from probkit.models import gp

    pk.enable_x64()
    t, y, new, _ = data(n)
    kernel, dense = gp.Matern(1.5) + gp.Matern(0.5, name="rough"), gp.Observed(t, y)
    sides = (
        (gp.Temporal(kernel), gp.Series(t, y, units=dense.units)),
        (gp.Regression(kernel), dense),
    )
    sites = {"level": 0.1, "noise_sd": NOISE, "sd_matern": SD, "lengthscale_matern": 1.0}
    sites |= {"sd_rough": 0.3, "lengthscale_rough": 0.5}
    sites = {k: np.asarray(v) for k, v in sites.items()}

    def answers(model, given):
        inputs = model.inputs(new, given)

        def asked(sites):
            found = model.predict(sites, inputs, jax.random.key(0))
            evidence = model.evidence(sites, given).log_prob(given.y)
            return evidence, found["mean"], found["sd"]

        return [np.asarray(a) for a in jax.jit(asked)(sites)]

    ours, theirs = (answers(*side) for side in sides)
    apart = [float(np.max(np.abs(a - b))) for a, b in zip(ours, theirs, strict=True)]
    return {"values": n} | dict(zip(("evidence", "mean", "sd"), apart, strict=True))


def beside(side: str, n: int):
    """One side in a process of its own; what went wrong, if it did not end."""
    limit = LENGTHS_LIMIT if side == "lengths" else LIMIT
    command = [sys.executable, __file__, "--side", side, "--values", str(n)]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=True
        )
    except subprocess.TimeoutExpired:
        return {"failed": f"more than {limit} s"}
    except subprocess.CalledProcessError as error:
        return {"failed": error.stderr.strip().splitlines()[-1]}
    return json.loads(done.stdout.splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--values", type=float, default=1e6)
    parser.add_argument("--quick", action="store_true", help="2,000 values")
    parser.add_argument("--side", choices=(*SIDES, *CHECKS), help="one side, printed")
    given = parser.parse_args()
    n = 2000 if given.quick else int(given.values)
    if given.side:
        ask = CHECKS.get(given.side, functools.partial(one, given.side))
        print(json.dumps(ask(n)))
        return
    facts = {"machine": timing.machine(), "values": n, "limit_s": LIMIT}
    result = facts | {side: beside(side, n) for side in CHECKS}
    result |= {"sides": {side: beside(side, n) for side in SIDES}}
    print(json.dumps(result, indent=2))
    timing.write("gp_temporal", result, given.quick)


if __name__ == "__main__":
    main()
