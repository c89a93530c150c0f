"""Processor time of a first session with a differential equation, by stage.

python benchmarks/pde_cold.py

Each session is a fresh process without kept programs: import, problem, fit, prediction at
new points, checks, and the solution on the grid. Compilation is most of it.
"""

import numpy as np
from stages import Clock, sessions
from timing import machine, median, table, write

PROBLEMS = {"u1": 10.0, "a1": 10.0, "decay": 10.0, "u7": 15.0, "a3": 15.0}
POINTS = {1: 100, 2: 30}
STAGES = ("import", "problem", "fit", "predict", "diagnose", "recover")


def session(name: str) -> dict[str, float]:
    """Seconds of processor of each stage; the import has those of Python's own start."""
    clock = Clock()
    done = clock.done

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
    return clock.total()


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
    found = sessions(__file__, __doc__, session, PROBLEMS, 3)
    if found is None:
        return
    rows, quick = found
    result = {"machine": machine(), "wanted": PROBLEMS, "rows": rows, "median": {}}
    for name in PROBLEMS:
        result["median"][name] = {s: median(rows[name], s) for s in (*STAGES, "total")}
    write("pde_cold", result, quick)
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
