"""probkit: structured Bayesian models, fitted in minutes, with diagnostics to trust."""

from importlib import import_module as _import_module
from importlib.metadata import version as _version
from typing import Any as _Any

from probkit.fits.diagnose import diagnose
from probkit.fits.fit import fit, update
from probkit.fits.io import load, save
from probkit.fits.moments import moments
from probkit.fits.predict import predict, prior, recover, with_log_likelihood
from probkit.fits.value import Fit, FitError
from probkit.infer import EM, MAP, NUTS, SVI
from probkit.method import RESULTS
from probkit.model.check import Check, Report
from probkit.settings import enable_x64, use_compilation_cache

__all__ = [
    "EM",
    "MAP",
    "NUTS",
    "RESULTS",
    "SVI",
    "Check",
    "Fit",
    "FitError",
    "Report",
    "datasets",
    "diagnose",
    "enable_x64",
    "fit",
    "load",
    "models",
    "moments",
    "plots",
    "predict",
    "prior",
    "recover",
    "save",
    "update",
    "use_compilation_cache",
    "with_log_likelihood",
]


def __getattr__(name: str) -> _Any:
    # Loaded where they are used, because pictures, data and families cost import time.
    if name in ("datasets", "models", "plots"):
        return _import_module(f"probkit.{name}")
    if name == "__version__":
        return _version("probkit-bayes")
    raise AttributeError(f"module 'probkit' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
