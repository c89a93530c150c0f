"""Processor time of a first session with a functional Tucker model, by stage.

python benchmarks/tucker_cold.py

Each session is a fresh process without kept programs: import, data, fit, checks, and
predictions at new entries. The table is made up, of the size of a published one: 11,000
entries at 428 temperatures, 501 pressures, 1,461 days and 12 stations. Compilation is
much of it, so that its seconds and the compiled programs are counted too. These seconds
are elapsed ones, in which one processor works.
"""

import numpy as np
from stages import Clock, sessions
from timing import machine, median, table, write

SESSIONS = ("CP", "Tucker")
STAGES = ("import", "data", "fit", "diagnose", "predict")
EVENT = "/jax/core/compile/backend_compile_duration"
TRACING = ("/jax/core/compile/jaxpr_trace_duration",)
TRACING += ("/jax/core/compile/jaxpr_to_mlir_module_duration",)
SIZES = {"temp": 428, "pres": 501, "day": 1461, "station": 12}
ENTRIES, NEW = 11_000, 2_000
WANTED = 60.0


def made_up(random, count: int):
    """Columns of a table: a daily effect, weather, stations, and two products of these."""
    place = {name: random.integers(0, size, count) for name, size in SIZES.items()}
    at = {name: place[name] / size for name, size in SIZES.items()}
    day = np.random.default_rng(1).normal(size=SIZES["day"]).cumsum() / 20
    y = day[place["day"]] + np.sin(5 * at["temp"]) + at["station"]
    y += day[place["day"]] * np.cos(4 * at["temp"]) + at["pres"] * np.sin(9 * at["day"])
    columns = place | {"station": np.char.add("station ", place["station"].astype(str))}
    return columns | {"y": y + 0.3 * random.normal(size=count)}


def session(name: str) -> dict[str, dict[str, float]]:
    """Processor seconds, compiled programs, and seconds of their making, of each stage."""
    clock, count, making = Clock(), 0, 0.0
    programs: dict[str, int] = {}
    compilation: dict[str, float] = {}

    def listen(event, duration, **_):
        nonlocal count, making
        count += event == EVENT
        making += duration * (event == EVENT)

    def done(stage):
        nonlocal count, making
        clock.done(stage)
        programs[stage], compilation[stage] = count, making
        count, making = 0, 0.0

    import arviz_base  # noqa: F401 (which the first fit would import)
    import jax

    import probkit as pk
    from probkit.models import tucker

    pk.enable_x64()
    jax.monitoring.register_event_duration_secs_listener(listen)
    key = jax.random.key(0)
    done("import")
    random = np.random.default_rng(0)
    columns, new = made_up(random, ENTRIES), made_up(random, NEW)
    data = tucker.Entries.from_table(columns, list(SIZES), "y")
    done("data")
    rough = {axis: tucker.Smooth(0.5) for axis in ("temp", "pres", "day")}
    make = {"CP": tucker.CP, "Tucker": tucker.Tucker}[name]
    # As in `funbat.py`.
    method = tucker.MessagePassing(
        num_starts=2, max_steps=60, atol=1.0, num_draws=100, num_warmup=50
    )
    fit = pk.fit(make(2, rough), data, method, key=key, progress=False, throw=False)
    done("fit")
    pk.diagnose(fit)
    done("diagnose")
    pk.predict(fit, {axis: new[axis] for axis in SIZES}, key=key)
    done("predict")
    return {
        "seconds": clock.total(),
        "programs": programs | {"total": sum(programs.values())},
        "compilation": compilation | {"total": sum(compilation.values())},
        "sweeps": {"fit": int(fit.tree["trace"]["steps"].values.sum())},
        "elbo": {"fit": fit.facts["elbo"]},
    }


def main() -> None:
    found = sessions(__file__, __doc__, session, SESSIONS, 3)
    if found is None:
        return
    rows, quick = found
    result = {"machine": machine(), "wanted": WANTED, "rows": rows}
    columns = (*STAGES, "total")
    for what in ("seconds", "programs", "compilation"):
        result[what] = {
            name: {s: median([row[what] for row in rows[name]], s) for s in columns}
            for name in SESSIONS
        }
        print(f"\n{what}, median")
        lines = [(name, *(result[what][name][s] for s in columns)) for name in SESSIONS]
        table(("session", *columns), lines)
    write("tucker_cold", result, quick)


if __name__ == "__main__":
    main()
