"""A run to be killed, for `test_resume.py`: `python resume_script.py '{...}'`.

The argument says which methods to fit, where to keep each run, where to write its
outcome, and at which moment to die.
"""

import contextlib
import json
import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np

import probkit as pk
from probkit.method import checkpoint, loop
from probkit.models import meta, moe

STEPS = meta.Episodic(max_steps=40, atol=1e-12, draws="approximation", num_draws=30)
METHODS = {
    "EM": pk.EM(num_restarts=2, num_moves=0, atol=1e-12),
    "SVI": pk.SVI(num_starts=2, batch_size=20, max_steps=60, window=10, num_draws=50),
    "NUTS": pk.NUTS(num_chains=2, num_warmup=30, num_samples=30),
    "Gibbs": meta.Gibbs(num_chains=2, num_warmup=10, num_samples=30),
    "Episodic": STEPS,
    "Episodic, a source": STEPS,
}
KEY = 5


def problem():
    rng = np.random.default_rng(1)
    x = rng.normal(3.0, 2.0, 40)
    y = np.where(x > 3, 10 - x, 4 * x) + rng.normal(0, 2.0, 40)
    return moe.MixtureOfExperts(num_experts=2), moe.Pairs(x, y)


def episodes(name: str):
    source = meta.LinearGaussian(
        jax.random.key(1), [1.0, -0.5], [[0.5, 0.2], [0.2, 0.3]], 8
    )
    return meta.Linear(), source if name == "Episodic, a source" else source.at(0)


def short_chunks():
    """Chunks of one to seven steps, as the clock has it."""
    loop.CHUNK_STEPS, loop.CHUNK_SECONDS, checkpoint.SECONDS = 7, 0.005, 0.0


def run(name: str, folder: str | Path | None):
    model, data = problem() if name in ("EM", "SVI", "NUTS") else episodes(name)
    key = jax.random.key(KEY)
    return pk.fit(model, data, METHODS[name], key=key, checkpoint=folder, throw=False)


def outcome(fitted) -> dict[str, np.ndarray]:
    """Every number of a fit."""
    arrays = {f"facts/{k}": np.asarray(v) for k, v in fitted.facts.items()}
    for group in ("posterior", "sample_stats", "trace"):
        if group in fitted.tree:
            for k, v in fitted.tree[group].data_vars.items():
                arrays[f"{group}/{k}"] = v.values
    return arrays


class Stopped(BaseException):
    """In place of a kill, if other runs are to follow in the same process."""


# The runs of this process that have not begun.
to_follow: list[str] = []


def die():
    if to_follow:
        raise Stopped
    os.kill(os.getpid(), signal.SIGKILL)


def step_of(path: Path) -> int:
    return int(path.stem.split("-")[1]) if path.name.startswith("state-") else 0


def die_before_rename(name: str, step: int):
    """When a whole temporary file lies beside `name`, of `step` or later."""
    replace = os.replace

    def replace_or_die(old, new):
        if Path(new).name.startswith(name) and step_of(Path(new)) >= step:
            die()
        replace(old, new)

    os.replace = replace_or_die


def die_in_write(name: str, step: int):
    """When half of the bytes of `name` are written."""
    save = checkpoint.save_arrays

    def save_or_die(path, arrays):
        if path.name.startswith(name) and step_of(path) >= step:

            def write_half(file):
                file.write(b"half of it")
                file.flush()
                die()

            checkpoint.write_atomically(path, write_half)
        save(path, arrays)

    checkpoint.save_arrays = save_or_die


def die_before_write(name: str, step: int):
    """When what belongs before `name` is written, and `name` is not begun."""
    save = checkpoint.save_arrays

    def save_or_die(path, arrays):
        if path.name.startswith(name) and step_of(path) >= step:
            die()
        save(path, arrays)

    checkpoint.save_arrays = save_or_die


def wait_to_be_killed(name: str, step: int):
    """Once `name` is written, between two chunks."""
    save = checkpoint.save_arrays

    def save_and_wait(path, arrays):
        save(path, arrays)
        if path.name.startswith(name) and step_of(path) >= step:
            time.sleep(600)

    checkpoint.save_arrays = save_and_wait


def take_no_step(*_):
    raise AssertionError("a finished run took a step")


MOMENTS = {
    f.__name__: f
    for f in (die_before_rename, die_in_write, die_before_write, wait_to_be_killed)
}


def main(plan) -> None:
    pk.enable_x64()
    here = Path(__file__).parents[2] / ".jax-cache"
    pk.use_compilation_cache(os.environ.get("PROBKIT_TEST_CACHE") or here)
    short_chunks()
    if "moment" in plan:
        MOMENTS[plan["moment"]](plan["name"], plan["step"])
    to_follow.extend(plan["runs"])
    for name, (folder, out) in plan["runs"].items():
        to_follow.remove(name)
        with contextlib.suppress(Stopped):
            np.savez(out, **outcome(run(name, folder)))
    if "then" in plan:
        for name, (folder, out) in plan["then"].items():
            np.savez(out, **outcome(run(name, folder)))
        # What has ended is called again.
        checkpoint.Checkpoint.add = take_no_step
        for name, (folder, out) in plan["then"].items():
            np.savez(out + ".again.npz", **outcome(run(name, folder)))


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
