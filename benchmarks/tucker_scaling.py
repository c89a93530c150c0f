"""Time and memory of functional Tucker models, by entries and by points of a mode.

python benchmarks/tucker_scaling.py

Processor seconds of a sweep at several sizes, whose slope on log scales is one where the
cost is linear, and one whole fit of the largest table with its draws, compilation
included. Each row is a fresh process, whose largest memory is what the operating system
says. The tables are made up: a surface of rank five, with main effects and noise.
"""

import argparse
import json
import resource
import time

import numpy as np
from timing import fresh_process, machine, table, timed, write

RANK, NOISE = 5, 0.5
# Points of each mode in sweeps by entries, where these are most of the cost; and in the
# first mode of the fit.
LENGTH, LONG = 100, 1_000
ENTRIES = (125_000, 250_000, 500_000, 1_000_000)
# Of the first mode, with so few entries that its chain is most of the cost.
POINTS = (5_000, 10_000, 20_000, 40_000)
SWEEPS, REPEATS = 3, 3
WANTED = {"wall_s": 300.0, "gigabytes": 4.0}


def made_up(entries: int, points: int):
    """Coordinates, values, and the surface; every point of the first mode has an entry."""
    random = np.random.default_rng(0)
    sizes = {"s": points, "t": LENGTH, "u": LENGTH}
    coords = {k: random.integers(0, size, entries) for k, size in sizes.items()}
    coords["s"][:points] = np.arange(points)
    at = {k: coords[k] / size for k, size in sizes.items()}
    f = np.sin(6 * at["s"]) + at["t"]
    for r in range(1, RANK + 1):
        f += np.sin(r * at["s"] + r) * np.cos(2 * r * at["t"]) * np.cos(r - 3 * at["u"])
    return coords, f + NOISE * random.normal(size=entries), f


def sweep(entries: int, points: int) -> dict[str, float]:
    """Processor seconds of one sweep."""
    import jax

    import probkit as pk
    from probkit.models import tucker

    pk.enable_x64()
    coords, y, _ = made_up(entries, points)
    data, model = tucker.Entries(coords, y), tucker.CP(RANK)
    method = tucker.MessagePassing(warm=0)

    @jax.jit
    def sweeps(state, count):
        return jax.lax.fori_loop(
            0, count, lambda _, state: method.step(model, data, state), state
        )

    start = jax.jit(lambda key: method.init(model, data, key, None))(jax.random.key(0))
    state = jax.block_until_ready(sweeps(start, 1))
    found = [
        timed(lambda: jax.block_until_ready(sweeps(state, SWEEPS)))[0]["cpu_s"] / SWEEPS
        for _ in range(REPEATS)
    ]
    return {"cpu_s": min(found)}


def whole_fit(entries: int, points: int) -> dict[str, float]:
    """A fit with draws, and the error of its surface relative to the noise."""
    import jax

    import probkit as pk
    from probkit.models import tucker

    pk.enable_x64()
    coords, y, f = made_up(entries, points)
    method = tucker.MessagePassing(
        num_starts=1, max_steps=60, atol=1.0, num_draws=50, num_warmup=50
    )

    def run():
        data = tucker.Entries(coords, y)
        return pk.fit(
            tucker.CP(RANK),
            data,
            method,
            key=jax.random.key(0),
            progress=False,
            throw=False,
        )

    seconds, fit = timed(run)
    asked = {k: v[:10_000] for k, v in coords.items()}
    error = pk.moments(fit, asked)["mean"].values.reshape(-1) - f[:10_000]
    return seconds | {
        "sweeps": int(fit.tree["trace"]["steps"].values.sum()),
        "draws": method.num_draws + method.num_warmup,
        "settled": bool(fit.facts["settled"]),
        "error": float(np.sqrt(np.mean(error**2)) / NOISE),
    }


KINDS = {"sweep": sweep, "fit": whole_fit}


def row(kind: str, entries: int, points: int) -> dict[str, float | str]:
    found = fresh_process(__file__, "--one", json.dumps([kind, entries, points]))
    return {"what": kind, "entries": entries, "points": points} | found


def slope(rows: list[dict], name: str) -> float:
    """Of processor seconds against a size, both as logs."""
    sizes, seconds = ([row[key] for row in rows] for key in (name, "cpu_s"))
    return float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="sizes of a tenth")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        kind, *sizes = json.loads(args.one)
        found = KINDS[kind](*sizes)
        # Kilobytes on Linux.
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps(found | {"gigabytes": peak}))
        return
    by = 10 if args.quick else 1
    begun = time.perf_counter()
    facts = machine()
    of_entries = [row("sweep", n // by, LENGTH) for n in ENTRIES]
    of_points = [row("sweep", p // by, p // by) for p in POINTS]
    fit = row("fit", ENTRIES[-1] // by, LONG)
    slopes = {"entries": slope(of_entries, "entries"), "points": slope(of_points, "points")}
    rows = [*of_entries, *of_points, fit]
    result = {"machine": facts, "dtype": "float64", "rank": RANK, "wanted": WANTED}
    write("tucker_scaling", result | {"rows": rows, "slopes": slopes}, args.quick)
    keys = ("what", "entries", "points", "cpu_s", "gigabytes")
    table(keys, [tuple(one[key] for key in keys) for one in rows])
    print(
        f"a fit takes {fit['wall_s']:.0f} s; slopes {slopes['entries']:.2f} by entries, "
        f"{slopes['points']:.2f} by points; {time.perf_counter() - begun:.0f} s in all"
    )


if __name__ == "__main__":
    main()
