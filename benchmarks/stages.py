"""Processor time of a session by stage, each session in a fresh process."""

import argparse
import json
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from timing import fresh_process


class Clock:
    """Processor seconds of each stage; the first has those of Python's own start."""

    def __init__(self):
        self.seconds: dict[str, float] = {}
        self._begin = 0.0

    def done(self, stage: str) -> None:
        now = time.process_time()
        self.seconds[stage], self._begin = now - self._begin, now

    def total(self) -> dict[str, float]:
        return self.seconds | {"total": sum(self.seconds.values())}


def sessions(
    script: str,
    about: str,
    session: Callable[[str], Any],
    names: Iterable[str],
    repeats: int,
) -> tuple[dict[str, list], bool] | None:
    """What each session returned, by name, and whether few were asked for (`--quick`).

    In the fresh processes it runs the one session, prints it, and returns None.
    """
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--repeats", type=int, default=repeats)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(session(given.one)))
        return None
    script = str(Path(script).resolve())
    count = 1 if given.quick else given.repeats
    rows = {
        name: [fresh_process(script, "--one", name) for _ in range(count)] for name in names
    }
    return rows, given.quick
