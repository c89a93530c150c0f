"""Mixtures of experts: how often the default call of EM finds the best optimum known.

    python benchmarks/moe_optima.py --data folder [--quick]

The folder has `mcycle.csv` and `faithful.csv` of R, and `nodata.csv` of its package
mixtools. Each fit maximises the likelihood from 16 restarts, with another key. A fit counts
as a hit if it is at most 0.02 nats below the best log likelihood that is known. Seconds are
of the processor, and without compilation.
"""

import argparse
import time
from pathlib import Path

import jax
import numpy as np
import pandas as pd
from timing import machine, table, write

import probkit as pk
from probkit.models import moe

FILES = {
    "motorcycle": ("mcycle.csv", "times", "accel"),
    "NO": ("nodata.csv", "Equivalence", "NO"),
    "faithful": ("faithful.csv", "waiting", "eruptions"),
}
# The highest log likelihoods of flexmix and of thousands of starts of all kinds.
BEST = {
    ("motorcycle", 3): -577.625,
    ("motorcycle", 4): -550.245,
    ("NO", 3): -6.520,
    ("NO", 4): 15.653,
    ("faithful", 3): -80.708,
}
NEAR = 0.02


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--quick", action="store_true", help="3 keys instead of 20")
    args = parser.parse_args()
    pk.enable_x64()
    facts, rows = machine(), []
    for (name, num_experts), best in BEST.items():
        file, x, y = FILES[name]
        frame = pd.read_csv(args.data / file)
        data = moe.Pairs(frame[x].to_numpy(float), frame[y].to_numpy(float))
        model = moe.MixtureOfExperts(num_experts)
        found, seconds = [], []
        for i in range(-1, 3 if args.quick else 20):  # the first one compiles
            began = time.process_time()
            fitted = pk.fit(
                model,
                data,
                pk.EM(maximise="likelihood"),
                key=jax.random.key(100 + i),
                throw=False,
            )
            if i >= 0:
                seconds.append(time.process_time() - began)
                found.append(fitted.facts["objective"])
        rows.append(
            {
                "data": name,
                "experts": num_experts,
                "best known": best,
                "best found": max(found),
                "lowest found": min(found),
                "hits": int((np.array(found) > best - NEAR).sum()),
                "of": len(found),
                "cpu_s": float(np.median(seconds)),
                "all": found,
            }
        )
    header = tuple(name for name in rows[0] if name != "all")
    table(header, [tuple(row[name] for name in header) for row in rows])
    write("moe_optima", {"machine": facts, "rows": rows}, args.quick)


if __name__ == "__main__":
    main()
