"""Processor time of a first session with sparse coefficients, by stage.

python benchmarks/sbl_cold.py

Each session is a fresh process without kept programs: import, data, fit, the posterior
and its questions called one by one, checks, recovered coefficients, and predictions.
Compilation is most of it, so that compiled programs are counted too.
"""

import numpy as np
from stages import Clock, sessions
from timing import machine, median, table, write

SESSIONS = ("two modes", "one mode")
STAGES = ("import", "data", "fit", "posterior", "diagnose", "recover", "predict")
EVENT = "/jax/core/compile/backend_compile_duration"


def two_modes():
    """The example of docs/sbl.md: dictionaries 8 x 12 and 10 x 12, support 2 x 3."""
    random = np.random.default_rng(2)
    rows, columns = random.normal(size=(8, 12)), random.normal(size=(10, 12))
    x = np.zeros((12, 12))
    x[np.ix_([2, 7], [1, 5, 6])] = random.normal(size=(2, 3))
    return rows @ x @ columns.T + 0.1 * random.normal(size=(8, 10)), [rows, columns]


def one_mode():
    """A dictionary of 60 x 120 and four atoms."""
    random = np.random.default_rng(2)
    dictionary, x = random.normal(size=(60, 120)), np.zeros(120)
    x[[3, 30, 31, 100]] = [2.0, -1.0, 1.5, 1.0]
    return dictionary @ x + 0.1 * random.normal(size=60), [dictionary]


def session(name: str) -> dict[str, dict[str, float]]:
    """Processor seconds and compiled programs of each stage.

    The import has the seconds of Python's own start. In `posterior` the questions are
    called one by one, as in a notebook.
    """
    clock, programs, count = Clock(), {}, 0

    def compiled(event, duration, **_):
        nonlocal count
        count += event == EVENT

    def done(stage):
        nonlocal count
        clock.done(stage)
        programs[stage], count = count, 0

    import arviz_base  # noqa: F401 (which the first fit would import)
    import jax

    import probkit as pk
    from probkit.models import sbl

    pk.enable_x64()
    jax.monitoring.register_event_duration_secs_listener(compiled)
    key = jax.random.key(0)
    done("import")
    y, dictionaries = two_modes() if name == "two modes" else one_mode()
    data = sbl.Measurements(y, dictionaries)
    model = sbl.KroneckerSBL()
    done("data")
    fit = pk.fit(model, data, sbl.TypeII(), key=key, progress=False)
    done("fit")
    post = model.posterior(fit.sites(), data)
    answers = post.mean(), post.variances(), post.sample(key), post.at(dictionaries)
    jax.block_until_ready(answers)
    done("posterior")
    pk.diagnose(fit)
    done("diagnose")
    pk.recover(fit, key=key)
    done("recover")
    pk.predict(fit, dictionaries, key=key)
    done("predict")
    return {
        "seconds": clock.total(),
        "programs": programs | {"total": sum(programs.values())},
    }


def main() -> None:
    found = sessions(__file__, __doc__, session, SESSIONS, 5)
    if found is None:
        return
    rows, quick = found
    result = {"machine": machine(), "rows": rows, "seconds": {}, "programs": {}}
    columns = (*STAGES, "total")
    for name in SESSIONS:
        for what in ("seconds", "programs"):
            parts = [row[what] for row in rows[name]]
            result[what][name] = {stage: median(parts, stage) for stage in columns}
    write("sbl_cold", result, quick)
    for what in ("seconds", "programs"):
        print(f"\n{what}, median")
        table(
            ("session", *columns),
            [
                (name, *(result[what][name][stage] for stage in columns))
                for name in SESSIONS
            ],
        )


if __name__ == "__main__":
    main()
