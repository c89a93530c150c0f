"""Memory of a fit as the number of data sets grows: from a stream, and in memory.

    python benchmarks/meta_memory.py            # 2e3, 2e4 and 2e5 data sets; two minutes
    python benchmarks/meta_memory.py --quick    # 2e3 and 2e4

`meta.Linear` on sines and lines of 5 points, with four features. A stream makes 20 data
sets per step, and uses each once; in memory, all of them are in each of ten steps. Each fit
is a process of its own, and `peak_mib` the largest resident memory of it. Most of that is
the compiler's, which needs more for a stream, because the program makes the data as well;
so compare the rows of one kind. `per_data_set` is the growth since the smallest number, in
bytes per data set; the values of a data set take 85.
"""

import argparse
import json
import resource
import sys

import jax
import jax.numpy as jnp
from timing import fresh_process, machine, table, timed, write

import probkit as pk
from probkit.models import meta
from probkit.models.meta.niwmeta import sineline

BATCH, PIECE, STEPS = 20, 1000, 10
STREAM, MEMORY = "stream", "in memory"


def in_memory(num: int) -> meta.Episodes:
    """The data sets, made a thousand at a time, because to make them takes more memory."""
    source = meta.SineLine(jax.random.key(0), PIECE)
    at = jax.jit(lambda step: source.at(step).rows())
    pieces = [at(step) for step in range(num // PIECE)]
    whole = {name: jnp.concatenate([p[name] for p in pieces]) for name in pieces[0]}
    return source.like.replaced(whole)


def peak_mib() -> float:
    """The largest resident memory of this process so far."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


def one(kind: str, num: int) -> None:
    """One fit, with its memory and its seconds."""
    settings = {"num_draws": 10, "draws": "approximation"}
    if kind == STREAM:
        data = meta.SineLine(jax.random.key(0), BATCH, num)
        method = meta.Episodic(max_steps=num // BATCH, patience=num, **settings)
    else:
        data = in_memory(num)
        method = meta.Episodic(max_steps=STEPS, atol=1e-9, **settings)
    model = meta.Linear(features=sineline.features)
    seconds, fitted = timed(
        lambda: pk.fit(model, data, method, key=jax.random.key(1), throw=False)
    )
    steps = fitted.tree["trace"]["objective"].shape[1]
    print(json.dumps({"peak_mib": peak_mib(), "steps": steps} | seconds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="up to 20,000 data sets")
    parser.add_argument("--one", nargs=2, metavar=("KIND", "N"), help="one fit, no more")
    args = parser.parse_args()
    pk.enable_x64()
    if args.one:
        return one(args.one[0], int(args.one[1]))
    rows = []
    for kind in (STREAM, MEMORY):
        for num in (2_000, 20_000) if args.quick else (2_000, 20_000, 200_000):
            found = fresh_process(__file__, "--one", kind, str(num))
            rows.append({"data": kind, "n": num} | found)
        first, last = (rows[i] for i in (-2 if args.quick else -3, -1))
        grown = (last["peak_mib"] - first["peak_mib"]) * 2**20
        last["per_data_set"] = grown / (last["n"] - first["n"])
    names = ("data", "n", "steps", "peak_mib", "cpu_s", "per_data_set")
    table(names, [tuple(row.get(name, "") for name in names) for row in rows])
    result = {"machine": machine(), "dtype": "float64", "rows": rows}
    write("meta_memory", result, args.quick)


if __name__ == "__main__":
    main()
