"""The cost of one SVI step as the data grow, with a batch of rows and with all rows.

    python benchmarks/minibatch.py            # n = 1e4, 1e5, 1e6; a few minutes
    python benchmarks/minibatch.py --quick    # n = 1e3, 1e4

The model is a softmax mixture of two experts. At each size three things are timed in turn:
a step with probkit's batches, a step with all rows, and the rival of these batches, alone:
to draw as many rows without replacement (`jax.random.choice`), which sorts all rows. Times
are processor milliseconds per step, warm. The slope is that of log time over log n.
"""

import argparse

import jax
import jax.numpy as jnp
import numpy as np
import timing

import probkit as pk
from probkit.method import loop
from probkit.model.source import example_of, steps_from
from probkit.models import moe

BATCH, REPEATS = 1000, 5


def problem(n: int):
    x = jax.random.uniform(jax.random.key(1), (n,), minval=-2.0, maxval=2.0)
    data = moe.simulate(
        jax.random.key(2),
        x,
        gate=[[0.25, -0.25], [-1.5, 1.5]],
        coefficient=[[1.0, -1.0], [2.0, -1.0]],
        noise_sd=[0.5, 0.8],
    )
    return moe.MixtureOfExperts(num_experts=2), data


def stepper(n: int, batch: int | None):
    """Return a function that runs a given number of steps. It is compiled and warm."""
    model, data = problem(n)
    method = pk.SVI(batch_size=batch, num_particles=1)
    begun = method.begin(model, data, jax.random.key(0), None)
    bare, lanes = method.bare(), method.lanes()
    own = (jax.random.split(begun.key_run, 1), None)
    source = data if begun.source is None else begun.source
    states = loop.init_lanes(bare, begun.program, example_of(source), own, lanes)
    given = steps_from(source, data, 0, 0, 500)

    def run(steps: int):
        count = jnp.int32(steps)
        out = loop.advance_lanes(bare, begun.program, given, states, count, 500, lanes)
        return jax.block_until_ready(out)

    run(1)
    return run


def sorting(n: int, batch: int):
    """Return a function that draws ten batches without replacement, each by a sort."""

    @jax.jit
    def rows(key):
        def one(key, _):
            key, own = jax.random.split(key)
            drawn = jax.random.choice(own, n, (batch,), replace=False)
            return key, drawn.sum()

        return jax.lax.scan(one, key, None, length=10)[1]

    jax.block_until_ready(rows(jax.random.key(0)))
    return lambda steps: jax.block_until_ready(rows(jax.random.key(0)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    pk.enable_x64()
    sizes = (1_000, 10_000) if quick else (10_000, 100_000, 1_000_000)
    rows = []
    for n in sizes:
        batch = min(BATCH, n // 2)
        sides = {
            "batch": (stepper(n, batch), 500),
            "all rows": (stepper(n, None), 20),
            "sort alone": (sorting(n, batch), 10),
        }
        runs = timing.alternate(
            {
                name: lambda _, run=run, steps=steps: (
                    timing.timed(lambda: run(steps))[0]["cpu_s"] / steps * 1e3
                )
                for name, (run, steps) in sides.items()
            },
            REPEATS,
        )
        rows.append({"n": n, **{name: float(np.median(ms)) for name, ms in runs.items()}})
    logs = np.log([row["n"] for row in rows])
    slopes = {
        name: float(np.polyfit(logs, np.log([row[name] for row in rows]), 1)[0])
        for name in ("batch", "all rows", "sort alone")
    }
    timing.table(("n", *slopes), [(row["n"], *(row[k] for k in slopes)) for row in rows])
    print("slopes", {name: round(slope, 3) for name, slope in slopes.items()})
    result = {
        "machine": timing.machine(),
        "unit": "CPU ms per step",
        "batch": BATCH,
        "rows": rows,
        "slopes": slopes,
    }
    timing.write("minibatch", result, quick)


if __name__ == "__main__":
    main()
