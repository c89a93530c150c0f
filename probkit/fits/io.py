"""Fits on disk: netCDF with one JSON record. Nothing is pickled, nothing is executed."""

import importlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from probkit.fits.value import Fit
from probkit.infer import EM, NUTS, SVI
from probkit.method import RESULTS, AbstractMethod
from probkit.model import AbstractData, AbstractModel
from probkit.model.density import prior_draw
from probkit.record import describe, family_name, plain, rebuild, write_atomically

FORMAT = 1
RECORD = "probkit"

# Where a family's classes are found, by the name that a file has for them. This list is
# the only place that knows families by name.
FAMILIES = {
    "moe.SoftmaxMoE": "probkit.models.moe",
    "moe.Pairs": "probkit.models.moe",
    "pde.Adam": "probkit.models.pde",
    "pde.Closed": "probkit.models.pde",
    "pde.GridGP": "probkit.models.pde",
    "pde.Problem": "probkit.models.pde",
    "pde.SpectralGP": "probkit.models.pde",
    "sbl.KroneckerSBL": "probkit.models.sbl",
    "sbl.Measurements": "probkit.models.sbl",
    "sbl.Sequential": "probkit.models.sbl",
    "sbl.TypeII": "probkit.models.sbl",
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
    # With a checksum wherever HDF5 can keep one: a disk's error is told, not averaged in.
    checked = {
        group.path: {
            name: {"fletcher32": True}
            for name, array in group.variables.items()
            if array.size and array.ndim and array.dtype.kind in "fiub"
        }
        for group in tree.subtree
    }
    return tree.to_netcdf(None, engine="h5netcdf", encoding=checked)


def _static_fields(data) -> dict[str, Any]:
    return {k: plain(v) for k, v in data.fields().items()}


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
        model = _rebuild(record["model"], families, AbstractModel)
        data = _rebuild_data(record["data"], tree, families)
        method = _method(record["method"])
        result = _known_result(record["result"])
        facts, versions = dict(record["facts"]), dict(record["record"])
        _refuse_other_draws(tree, model, data)
    except KeyError as error:
        raise ValueError(
            f"`load`: the record in `{path}` is not right (it lacks {error})."
        ) from None
    except Exception as error:
        # Whatever a changed record makes a class say.
        raise ValueError(
            f"`load`: the record in `{path}` is not right ({_first_line(error)})."
        ) from None
    return Fit(model, data, method, tree, result, facts, versions)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".:") if lines else type(error).__name__


def _refuse_other_draws(tree, model, data) -> None:
    if "posterior" not in tree:
        raise ValueError("there is no posterior")
    expected = jax.eval_shape(lambda: prior_draw(model, data, jax.random.key(0)))
    posterior = tree["posterior"].data_vars
    for name, one in expected.items():
        found = posterior[name].shape[2:] if name in posterior else None
        if found != one.shape:
            raise ValueError(
                f"`{name}` has the shape {found}, where the model has {one.shape}"
            )


def _known_result(name: Any) -> str:
    if not isinstance(name, str) or name not in RESULTS._name_to_item:
        raise ValueError(f"{name!r} is no item of `RESULTS`")
    return name


def _record(tree, path: Path) -> dict[str, Any]:
    text = tree.attrs.pop(RECORD, None)
    if text is None:
        raise ValueError(
            f"`load`: `{path}` was not written by probkit; read it with `az.from_netcdf`."
        )
    try:
        record = json.loads(text)
        written = int(record["format"])
        if written < 1:
            raise ValueError
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError(f"`load`: the record in `{path}` is damaged.") from None
    if written > FORMAT:
        raise ValueError(
            f"`load`: `{path}` has format {written}, of a newer probkit; this one reads "
            f"up to {FORMAT}. Upgrade probkit."
        )
    return record


def _class(name: str, families: Mapping[str, type] | None, kind: type) -> Any:
    if families is not None and name in families:
        cls = families[name]
    elif name in FAMILIES:
        module = importlib.import_module(FAMILIES[name])
        cls = getattr(module, name.rpartition(".")[2])
    else:
        raise ValueError(
            f"`{name}` is no family of probkit's; give its class, "
            f"`load(..., families={{{name!r}: ...}})`"
        )
    if not (isinstance(cls, type) and issubclass(cls, kind)):
        raise ValueError(f"`{name}` is no `{kind.__name__}`")
    return cls


def _rebuild(described: Mapping[str, Any], families, kind: type):
    return rebuild(_class(described["class"], families, kind), described["fields"])


def _rebuild_data(described: Mapping[str, Any], tree, families):
    cls = _class(described["class"], families, AbstractData)
    arrays = {
        name: np.asarray(array.values)
        for group in ("constant_data", "observed_data")
        if group in tree
        for name, array in tree[group].data_vars.items()
    }
    return cls.restore(arrays, described["fields"])


def _method(described: Mapping[str, Any] | None) -> AbstractMethod | None:
    if described is None:
        return None
    name = described["class"]
    try:
        cls = METHODS[name] if name in METHODS else _class(name, None, AbstractMethod)
        return rebuild(cls, described["fields"])
    except ValueError:
        # A guide or an optimiser of the user's own is not in the file.
        return None
