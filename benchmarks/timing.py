"""Code shared by the benchmarks: facts about the machine, repetitions, results on disk."""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from probkit.record import write_atomically

HERE = Path(__file__).parent
RESULTS = HERE / "results"


def machine() -> dict[str, Any]:
    """Processor, cores, load and versions, because a timing means nothing without them."""
    import jax
    import numpyro

    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line for line in info.read_text().splitlines() if "model name" in line]
        processor = lines[0].split(":")[1].strip() if lines else processor
    return {
        "processor": processor,
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "commit": commit(),
        "load_before": round(os.getloadavg()[0], 2),
        "backend": jax.default_backend(),
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpyro": numpyro.__version__,
    }


def commit() -> str:
    """The commit of the code, with a `+` if files differ from it."""
    git = ["git", "-C", str(HERE)]
    try:
        name = subprocess.check_output([*git, "rev-parse", "--short=12", "HEAD"], text=True)
        differs = subprocess.check_output([*git, "status", "--porcelain"], text=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return name.strip() + ("+" if differs.strip() else "")


def timed(function: Callable[[], Any]) -> tuple[dict[str, float], Any]:
    """Elapsed and processor seconds, and what the function returned.

    The function must return arrays on the host, or wait for its arrays.
    """
    clock, processor = time.perf_counter(), time.process_time()
    value = function()
    seconds = {
        "wall_s": time.perf_counter() - clock,
        "cpu_s": time.process_time() - processor,
    }
    return seconds, value


def alternate(sides: dict[str, Callable[[int], Any]], repeats: int) -> dict[str, list]:
    """Call each side once per repetition. Every second repetition reverses the order."""
    out: dict[str, list] = {name: [] for name in sides}
    for repeat in range(repeats):
        order = list(sides) if repeat % 2 == 0 else list(sides)[::-1]
        for name in order:
            out[name].append(sides[name](repeat))
    return out


def fresh_process(script: str, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run a Python file in a new process, and return the JSON object in its last line."""
    done = subprocess.run(
        [sys.executable, script, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        raise RuntimeError(f"`{Path(script).name}` failed:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def median(rows: list[dict], name: str) -> float:
    return float(np.median([row[name] for row in rows]))


def write(name: str, result: dict[str, Any], quick: bool) -> Path:
    """Write a result to disk. A quick run does not overwrite a full one."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}{'_quick' if quick else ''}.json"
    text = json.dumps(result, indent=1, default=float) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))
    print(f"written to {path.parent.name}/{path.name}")
    return path


def table(header: tuple[str, ...], rows: list[tuple]) -> None:
    cells = [
        tuple(f"{c:.4g}" if isinstance(c, float) else str(c) for c in row)
        for row in (header, *rows)
    ]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
