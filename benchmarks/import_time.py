"""What `import probkit` adds to `import jax, numpyro`, in fresh processes."""

import argparse
import re
import subprocess
import sys
import time

from timing import alternate, machine, table, write

BASE = "import jax, numpyro"
OURS = "import jax, numpyro, probkit"


def seconds(statement: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", statement], check=True)
    return time.perf_counter() - began


def dearest(count: int) -> list[dict]:
    """Modules that `BASE` does not import, those that take longest by themselves first."""

    def profile(statement):
        done = subprocess.run(
            [sys.executable, "-X", "importtime", "-c", statement],
            check=True,
            capture_output=True,
            text=True,
        )
        lines = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \|\s+(\S+)", done.stderr)
        return {name: (int(own), int(total)) for own, total, name in lines}

    base, ours = profile(BASE), profile(OURS)
    new = {name: cost for name, cost in ours.items() if name not in base}
    names = sorted(new, key=lambda name: -new[name][0])[:count]
    return [
        {
            "module": name,
            "own_ms": new[name][0] / 1e3,
            "with_its_imports_ms": new[name][1] / 1e3,
        }
        for name in names
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="3 pairs instead of 15")
    parser.add_argument("--repeats", type=int, help="number of pairs")
    args = parser.parse_args()
    repeats = args.repeats or (3 if args.quick else 15)
    where = machine()
    seconds(OURS)  # once before, so that the files are in the disk cache
    runs = alternate(
        {"base": lambda _: seconds(BASE), "ours": lambda _: seconds(OURS)}, repeats
    )
    added = sorted(o - b for o, b in zip(runs["ours"], runs["base"], strict=True))
    middle = added[len(added) // 2]
    modules = dearest(12)
    table(
        ("module", "own, ms", "with its imports, ms"),
        [(m["module"], m["own_ms"], m["with_its_imports_ms"]) for m in modules],
    )
    print(
        f"import probkit adds {middle:.2f} s to {sorted(runs['base'])[repeats // 2]:.2f} s "
        f"(median of {repeats} pairs; range {added[0]:.2f} to {added[-1]:.2f} s)"
    )
    write(
        "import_time",
        {
            "machine": where,
            "unit": "s",
            "runs": runs,
            "median_added_s": middle,
            "target_s": 1.5,
            "dearest": modules,
        },
        args.quick,
    )


if __name__ == "__main__":
    main()
