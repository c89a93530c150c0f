"""Fits on disk: netCDF with one JSON record. Nothing is pickled, nothing is executed."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from probkit.files import write_atomically
from probkit.fit import Fit, data_arrays
from probkit.infer import EM, NUTS, SVI
from probkit.method import AbstractMethod
from probkit.record import describe, family_name, plain, rebuild

FORMAT = 1
RECORD = "probkit"

# Where a family's classes are found, by the name that a file has for them. This list is
# the only place that knows families by name.
FAMILIES = {
    "moe.SoftmaxMoE": "probkit.models.moe",
    "moe.Pairs": "probkit.models.moe",
}
METHODS: dict[str, type[AbstractMethod]] = {
    family_name(method): method for method in (EM, NUTS, SVI)
}


def save(fitted: Fit, path: str | Path) -> Path:
    """Write a fit as netCDF-4. The file appears whole, or not at all.

    Args:
        fitted: the fit.
        path: such as `"fit.nc"`.

    Raises:
        ValueError: if the folder does not exist.
    """
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"`save`: there is no folder `{path.parent}`; make it first.")
    data = fitted.data
    record = {
        "format": FORMAT,
        "model": describe(fitted.model),
        "data": {"class": family_name(type(data)), "fields": _static_fields(data)},
        "method": None if fitted.method is None else describe(fitted.method),
        "result": fitted.result,
        "facts": plain(dict(fitted.facts)),
        "record": plain(dict(fitted.record)),
    }
    tree = fitted.tree.copy()
    tree.attrs = {**tree.attrs, RECORD: json.dumps(record)}
    write_atomically(path, lambda file: file.write(_netcdf(tree)))
    return path


def _netcdf(tree) -> memoryview:
    return tree.to_netcdf(None, engine="h5netcdf")


def _static_fields(data) -> dict[str, Any]:
    arrays = data_arrays(data)
    return {k: plain(v) for k, v in vars(data).items() if k not in arrays}


def load(path: str | Path, families: Mapping[str, type] | None = None) -> Fit:
    """Read a fit that `save` wrote.

    Args:
        path: the file.
        families: classes of models and data that are not probkit's own, by the names
            that the file has for them, such as `{"mine.MyModel": MyModel}`.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: for a file that is damaged, not probkit's, or of a newer probkit.
    """
    import xarray as xr

    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"`load`: there is no file `{path}`.")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as lazy:
            tree = lazy.load()
    except Exception as error:
        # HDF5 has no one error for a file that is not whole.
        raise ValueError(
            f"`load`: `{path}` is damaged or no netCDF file ({_first_line(error)})."
        ) from None
    record = _record(tree, path)
    try:
        model = _rebuild(record["model"], families)
        data = _rebuild_data(record["data"], tree, families)
        fields = dict(result=record["result"], facts=record["facts"])
        versions = record["record"]
        method = _method(record["method"])
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"`load`: the record in `{path}` is not right: {error}.") from None
    return Fit(model, data, method, tree, record=versions, **fields)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__


def _record(tree, path: Path) -> dict[str, Any]:
    text = tree.attrs.pop(RECORD, None)
    if text is None:
        raise ValueError(
            f"`load`: `{path}` was not written by probkit; read it with `az.from_netcdf`."
        )
    try:
        record = json.loads(text)
        written = record["format"]
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"`load`: the record in `{path}` is damaged.") from None
    if not isinstance(written, int) or written > FORMAT:
        raise ValueError(
            f"`load`: `{path}` has format {written}, of a newer probkit; this one reads "
            f"up to {FORMAT}. Upgrade probkit."
        )
    return record


def _class(name: str, families: Mapping[str, type] | None) -> Any:
    if families is not None and name in families:
        return families[name]
    if name not in FAMILIES:
        raise ValueError(
            f"`{name}` is no family of probkit's; give its class, "
            f"`load(..., families={{{name!r}: ...}})`"
        )
    return getattr(importlib.import_module(FAMILIES[name]), name.rpartition(".")[2])


def _rebuild(described: Mapping[str, Any], families):
    return rebuild(_class(described["class"], families), described["fields"])


def _rebuild_data(described: Mapping[str, Any], tree, families):
    cls = _class(described["class"], families)
    arrays = {
        name: np.asarray(array.values)
        for group in ("constant_data", "observed_data")
        if group in tree
        for name, array in tree[group].data_vars.items()
    }
    return cls.restore(arrays, described["fields"])


def _method(described: Mapping[str, Any] | None) -> AbstractMethod | None:
    if described is None or described["class"] not in METHODS:
        return None
    try:
        return rebuild(METHODS[described["class"]], described["fields"])
    except ValueError:
        # A guide or an optimiser of the user's own is not in the file.
        return None
