"""Functional CP by sweeps and by batches: CPU time to come close to the bound of sweeps.

    python benchmarks/tucker_batches.py --entries 20000 200000

Entries at random of 200 days and 50 stations, a surface of two components, noise. Both
sides start at the same place. Compilation is left out, and the bound of all entries, which
is evaluated along the way, is not timed.
"""

import argparse
import time

import jax
import numpy as np

import probkit as pk
from probkit.models import tucker
from probkit.models.tucker.stochastic import Counted, Rounds, at_all

DAYS, STATIONS, NOISE = 200, 50, 0.5
MODEL = tucker.CP(2)


def entries(n: int) -> tucker.Entries:
    rng = np.random.default_rng(0)
    day, station = rng.integers(0, DAYS, n), rng.integers(0, STATIONS, n)
    swing = rng.normal(size=(2, STATIONS))[:, station]
    f = np.sin(day / 9) * swing[0] + np.cos(day / 23) * swing[1] + np.sin(day / 40)
    named = np.char.add("s", station.astype(str))
    return tucker.Entries({"day": day, "station": named}, f + NOISE * rng.normal(size=n))


def path(step, state, bound, budget: float) -> tuple[list[float], list[float]]:
    """Seconds of CPU, and the bound then, until the seconds are used up."""
    jax.block_until_ready(step(state, 0))
    seconds, spent, bounds, number = [], 0.0, [], 0
    while spent < budget:
        begun = time.process_time()
        state = jax.block_until_ready(step(state, number))
        spent, number = spent + time.process_time() - begun, number + 1
        if number < 10 or number % 5 == 0:
            seconds.append(spent)
            bounds.append(float(bound(state.posterior)))
    return seconds, bounds


def first(seconds: list[float], bounds: list[float], wanted: float) -> str:
    """When a bound was first reached."""
    pairs = zip(seconds, bounds, strict=True)
    return next((f"{s:.1f}" for s, b in pairs if b > wanted), "-")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[20_000, 200_000])
    parser.add_argument("--batch", type=int, default=2000)
    parser.add_argument("--seconds", type=float, default=40.0)
    args = parser.parse_args()
    pk.enable_x64()
    key = jax.random.key(0)
    print("entries  side     steps  CPU s to within 1,000 / 100 / 10 nats of the best")
    for n in args.entries:
        data = entries(n)
        whole = tucker.MessagePassing()
        sweep = jax.jit(lambda state, _, w=whole, d=data: w.step(MODEL, d, state))
        parts = tucker.StochasticMessagePassing(batch_size=args.batch)
        program = Counted(MODEL, n / args.batch)
        source = Rounds.of(data, key, args.batch)
        batch = jax.jit(
            lambda state, i, p=parts, g=program, s=source: p.step(g, s.at(i), state)
        )
        sides = {
            "sweeps": (sweep, whole.init(MODEL, data, key, None)),
            "batches": (batch, parts.init(program, source.at(0), key, None)),
        }
        found = {
            name: path(
                step, state, lambda post, d=data: at_all(MODEL, d, post)[1], args.seconds
            )
            for name, (step, state) in sides.items()
        }
        best = max(max(bounds) for _, bounds in found.values())
        for name, (seconds, bounds) in found.items():
            reached = [first(seconds, bounds, best - d) for d in (1000, 100, 10)]
            low = best - bounds[-1]
            print(
                f"{n:7d}  {name:8s} {len(seconds):5d}  {' / '.join(reached)}"
                f"  (ends {low:.1f} below)",
                flush=True,
            )


if __name__ == "__main__":
    main()
