"""Settings that a program makes once, at its top. The library never makes them."""

import functools
import os
import platform
from collections.abc import Callable
from pathlib import Path

import jax
import jaxlib


def enable_x64(use: bool = True) -> None:
    """Compute in float64. By default JAX computes in float32.

    Args:
        use: False switches back to float32.
    """
    jax.config.update("jax_enable_x64", use)


def use_compilation_cache(folder: str | Path | None = None) -> Path:
    """Keep compiled programs on disk, so that the next process need not compile again.

    Args:
        folder: where; by default `probkit/jax` in the user's cache folder, which
            `XDG_CACHE_HOME` names. It has one folder per version and kind of processor.

    Returns:
        The folder in use.
    """
    if folder is None:
        caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        folder = Path(caches) / "probkit" / "jax"
    machine = f"jax{jax.__version__}-jaxlib{jaxlib.__version__}-{platform.machine()}"
    path = Path(folder) / machine
    path.mkdir(parents=True, exist_ok=True)
    jax.config.update("jax_compilation_cache_dir", str(path))
    # The defaults leave out the many small programs of a fit.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    return path


def available_cores() -> int:
    """The number of processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def with_all_digits[**P, R](function: Callable[P, R]) -> Callable[P, R]:
    """The function, whose products of float32 matrices have seven digits on every device.

    By default a GPU multiplies them with three, which a posterior does not survive.
    `jax.config.update("jax_default_matmul_precision", ...)` decides, where it was called.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        given = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
        if given is not None:
            return function(*args, **kwargs)
        with jax.default_matmul_precision("highest"):
            return function(*args, **kwargs)

    return call
