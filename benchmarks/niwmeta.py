"""Sines and lines from a few points: our mixtures beside what is best, and what is usual.

Each task is a sine or a line, seen at 5 or 10 of 50 points with noise; the others are
predicted. Tables have the mean squared error (the noise has 0.09), minus the mean log
density, and the coverage of 90 % intervals, over 1,000 tasks that no fit has seen:

- Bayes-optimal: knows how tasks are made, and integrates over all sines and lines.
- one and two kinds: `meta.Linear` on sin x, cos x, x and 1, which has to learn the rest.
- learned features: two kinds on eight features that a network learns with the rest, in one
  pass over 20,000 tasks.
- a Gaussian process with a squared exponential kernel, whose scales fit the tasks best.
- no adaptation: mean and sd of all values.

With `--cold` it prints the seconds of one fit in a new process.
"""

import argparse
import json
import time
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
from timing import fresh_process, machine, median, table, timed, write

import probkit as pk
from probkit.models import meta
from probkit.models.meta.niwmeta import sineline

NUM_TASKS = 1000
# To learn features takes more tasks than to learn their covariance.
LEARNING_STEPS, LEARNING_KEYS = 1000, 3


def model(num_components: int) -> meta.Linear:
    return meta.Linear(num_components=num_components, features=sineline.features)


def streaming(num_support: int, key: int, num_tasks: int, num_components: int = 1):
    """One pass over the tasks, 20 per step: a first run compiles, a second is timed."""
    source = meta.SineLine(jax.random.key(key), 20, num_tasks, num_support)
    method = meta.Episodic(max_steps=num_tasks // 20, num_draws=1, num_starts=1)

    def run():
        return pk.fit(
            model(num_components), source, method, key=jax.random.key(key), throw=False
        )

    run()
    seconds, fitted = timed(run)
    return seconds, fitted


def learning(num_support: int, key: int, num_steps: int):
    """One pass over 20 tasks per step, to learn features as well."""
    key = jax.random.key(key)
    net = eqx.nn.MLP(1, 8, 40, 2, activation=jnp.tanh, key=key)
    method = meta.Episodic(
        max_steps=num_steps,
        patience=num_steps,
        num_starts=1,
        num_draws=1,
        learning_rate=0.01,
        # Steps of the hierarchy stay long while features move.
        delay=num_steps,
    )
    return pk.fit(
        meta.Linear(num_components=2, features=net),
        meta.SineLine(key, 20, 20 * num_steps, num_support),
        method,
        key=key,
        throw=False,
    )


def cold() -> None:
    """The first fit of a new process, with compilation, after all imports."""
    data = sineline.training(5, 2000)
    seconds, fitted = timed(
        lambda: pk.fit(model(1), data, meta.Episodic(num_draws=100), key=jax.random.key(0))
    )
    print(json.dumps(seconds | {"elbo": fitted.facts["elbo"]}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="300 tasks and 3 keys")
    parser.add_argument("--keys", type=int, help="number of keys of the mixture")
    parser.add_argument("--cold", action="store_true", help="one fit, and no more")
    args = parser.parse_args()
    pk.enable_x64()
    if args.cold:
        return cold()
    num_tasks = 300 if args.quick else NUM_TASKS
    num_training = 500 if args.quick else 2000
    keys = args.keys or (3 if args.quick else 20)
    result = {
        "machine": machine(),
        "dtype": "float64",
        "tasks": num_tasks,
        "training_tasks": num_training,
        "keys": keys,
    }
    for shots in (5, 10):
        tasks = sineline.held_out(shots, num_tasks)
        data = sineline.training(shots, num_training)
        rows = {"Bayes-optimal": sineline.summary(sineline.bayes_optimal(tasks))}
        method = meta.Episodic(num_draws=1)
        fit = pk.fit(model(1), data, method, key=jax.random.key(0), throw=False)
        rows["one kind"] = sineline.summary(sineline.of_fit(fit, tasks))
        of_keys = []
        for key in range(keys):
            began = time.perf_counter()
            found = pk.fit(
                model(2),
                sineline.training(shots, num_training, key),
                method,
                key=jax.random.key(key),
                throw=False,
            )
            seconds = time.perf_counter() - began
            of_keys.append(
                sineline.summary(sineline.of_fit(found, tasks))
                | {"elbo": found.facts["elbo"], "wall_s": seconds, "result": found.result}
                | {"starts_at_best": int(found.facts["reached_best"])}
            )
        ordered = sorted(of_keys, key=lambda row: row["mse"])
        rows["two kinds, median key"] = ordered[len(ordered) // 2]
        rows["two kinds, worst key"] = ordered[-1]
        rows["Gaussian process"] = sineline.summary(sineline.gaussian_process(tasks, data))
        rows["no adaptation"] = sineline.summary(sineline.no_adaptation(tasks, data))
        seconds, passed = streaming(shots, 0, num_training)
        rows["one kind, one pass"] = sineline.summary(sineline.of_fit(passed, tasks))
        num_steps = LEARNING_STEPS // 5 if args.quick else LEARNING_STEPS
        learning(shots, 0, num_steps)  # compiles
        of_features = []
        for key in range(1 if args.quick else LEARNING_KEYS):
            spent, found = timed(partial(learning, shots, key, num_steps))
            of_features.append(sineline.summary(sineline.of_fit(found, tasks)) | spent)
        ordered = sorted(of_features, key=lambda row: row["mse"])
        rows["learned features, median key"] = ordered[len(ordered) // 2]
        print(f"{shots} known points, {num_tasks} tasks, {num_training} in training")
        names = ("mse", "mse_error95", "nll", "cover90")
        table(("predictor", *names), [(k, *(v[n] for n in names)) for k, v in rows.items()])
        reached = sum(row["mse"] <= 0.35 for row in of_keys)
        print(f"two kinds: {reached} of {keys} keys have an MSE of at most 0.35")
        print(f"one pass over {num_training} tasks: {seconds['wall_s']:.2f} s")
        print(
            f"learned features, {20 * num_steps} tasks: "
            f"{median(of_features, 'cpu_s'):.1f} s of processor time"
        )
        result[f"{shots} points"] = {
            "rows": rows,
            "two_kinds_by_key": of_keys,
            "streaming": seconds,
            "learned_features_by_key": of_features,
        }
    runs = [fresh_process(__file__, "--cold") for _ in range(1 if args.quick else 3)]
    result["cold"] = runs
    print(f"first fit of a process: {median(runs, 'cpu_s'):.1f} s of processor time")
    write("niwmeta", result, args.quick)


if __name__ == "__main__":
    main()
