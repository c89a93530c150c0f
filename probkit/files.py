"""Files appear whole or not at all."""

import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

# How the name of a file begins that has not got its own name yet.
UNFINISHED = ".probkit-unfinished-"


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Call `write` on a temporary file beside `path`, then give it that name.

    The file is on the disk before it takes the name, so that a kill or a power cut
    leaves either the old file or the new one.
    """
    # Not `tempfile`: its files are for the owner's eyes alone, and stay so.
    temporary = path.parent / f"{UNFINISHED}{secrets.token_hex(8)}"
    try:
        with open(temporary, "xb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
