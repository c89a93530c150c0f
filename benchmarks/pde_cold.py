"""Processor time of a first session with a differential equation, by stage.

python benchmarks/pde_cold.py

Each session is a fresh process without kept programs: import, problem, fit, prediction at
new points, checks, and the solution on the grid. Compilation is most of it.
"""

import argparse
import json
import time

import numpy as np
from timing import HERE, fresh_process, machine, median, table, write

PROBLEMS = {"u1": 10.0, "a1": 10.0, "decay": 10.0, "u7": 15.0, "a3": 15.0}
POINTS = {1: 100, 2: 30}
STAGES = ("import", "problem", "fit", "predict", "diagnose", "recover")


def session(name: str) -> dict[str, float]:
    """Seconds of processor of each stage; the import has those of Python's own start."""
    stages, begin = {}, 0.0

    def done(stage):
        nonlocal begin
        now = time.process_time()
        stages[stage], begin = now - begin, now

    import jax

    import probkit as pk
    from probkit.models import pde

    pk.enable_x64()
    key = jax.random.key(0)
    done("import")
    problem = decay() if name == "decay" else getattr(pde.examples, name)()[0]
    done("problem")
    equation_sd = 1e-3 if name == "decay" else 1e-9
    model = pde.SpectralGP(equation_sd=equation_sd)
    fit = pk.fit(model, problem, pde.Closed(), key=key, progress=False, throw=False)
    done("fit")
    count = POINTS[len(problem.axes)]
    ends = [np.linspace(float(x[0]), float(x[-1]), count) for x in problem.grid]
    points = np.stack([x.reshape(-1) for x in np.meshgrid(*ends, indexing="ij")], -1)
    pk.predict(fit, points, key=key)
    done("predict")
    pk.diagnose(fit)
    done("diagnose")
    pk.recover(fit, key=key)
    done("recover")
    return stages | {"total": sum(stages.values())}


def decay():
    """An unknown rate, 20 noisy observations."""
    from probkit.models import pde

    random = np.random.default_rng(0)
    t = np.sort(random.uniform(0, 3, 20))
    values = np.exp(-0.8 * t) + 0.02 * random.normal(size=20)
    return pde.Problem(
        {"t": (0, 3)},
        lambda u, t, c: u.dt + c.rate * u,
        pde.Initial(1.0),
        shape=20,
        observations=pde.Observations(t, values),
        unknown={"rate": (0, 10)},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(session(given.one)))
        return
    repeats = 1 if given.quick else given.repeats
    result = {"machine": machine(), "wanted": PROBLEMS, "rows": {}, "median": {}}
    for name in PROBLEMS:
        script = str(HERE / "pde_cold.py")
        rows = [fresh_process(script, "--one", name) for _ in range(repeats)]
        result["rows"][name] = rows
        result["median"][name] = {s: median(rows, s) for s in (*STAGES, "total")}
    write("pde_cold", result, given.quick)
    columns = ("problem", *STAGES, "total", "wanted")
    table(
        columns,
        [
            (name, *(result["median"][name][s] for s in (*STAGES, "total")), wanted)
            for name, wanted in PROBLEMS.items()
        ],
    )


if __name__ == "__main__":
    main()
