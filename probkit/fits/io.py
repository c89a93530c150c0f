"""Fits on disk: netCDF with one JSON record. Nothing is pickled or executed."""

import importlib
import inspect
import json
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import numpy as np

from probkit.fits.value import Fit, refuse_wrong_types
from probkit.infer import EM, MAP, NUTS, SVI
from probkit.infer.guide import Guide
from probkit.infer.laplace import Normal
from probkit.method import RESULTS, AbstractApproximation, AbstractMethod, Point
from probkit.model import AbstractData, AbstractModel
from probkit.model.density import prior_draw
from probkit.record import (
    Arrays,
    describe,
    family_name,
    plain,
    rebuild,
    refill,
    write_atomically,
)

FORMAT = 2
RECORD = "probkit"
# The groups of a tree with the arrays of the model, and of the approximation.
MODEL, APPROXIMATION = "model", "approximation"

# The modules of the families' classes, by their names in a file.
FAMILIES = {
    "gp.Bernoulli": "probkit.models.gp",
    "gp.Drift": "probkit.models.gp",
    "gp.Grid": "probkit.models.gp",
    "gp.Linear": "probkit.models.gp",
    "gp.Matern": "probkit.models.gp",
    "gp.Normal": "probkit.models.gp",
    "gp.Observed": "probkit.models.gp",
    "gp.Periodic": "probkit.models.gp",
    "gp.Poisson": "probkit.models.gp",
    "gp.Product": "probkit.models.gp",
    "gp.Regression": "probkit.models.gp",
    "gp.Series": "probkit.models.gp",
    "gp.SpectralMixture": "probkit.models.gp",
    "gp.SquaredExponential": "probkit.models.gp",
    "gp.StudentT": "probkit.models.gp",
    "gp.Sum": "probkit.models.gp",
    "gp.Temporal": "probkit.models.gp",
    "meta.Categorical": "probkit.models.meta",
    "meta.Components": "probkit.models.meta",
    "meta.Diagonal": "probkit.models.meta",
    "meta.Episodes": "probkit.models.meta",
    "meta.Episodic": "probkit.models.meta",
    "meta.Fisher": "probkit.models.meta",
    "meta.Full": "probkit.models.meta",
    "meta.GaussNewton": "probkit.models.meta",
    "meta.GaussianClasses": "probkit.models.meta",
    "meta.Gibbs": "probkit.models.meta",
    "meta.Langevin": "probkit.models.meta",
    "meta.Linear": "probkit.models.meta",
    "meta.Matrix": "probkit.models.meta",
    "meta.Network": "probkit.models.meta",
    "meta.Noise": "probkit.models.meta",
    "meta.Normal": "probkit.models.meta",
    "meta.Poisson": "probkit.models.meta",
    "meta.Posterior": "probkit.models.meta",
    "meta.Shots": "probkit.models.meta",
    "meta.Side": "probkit.models.meta",
    "meta.Within": "probkit.models.meta",
    "moe.Activation": "probkit.models.moe",
    "moe.Bernoulli": "probkit.models.moe",
    "moe.Constant": "probkit.models.moe",
    "moe.MixtureOfExperts": "probkit.models.moe",
    "moe.Normal": "probkit.models.moe",
    "moe.Pairs": "probkit.models.moe",
    "moe.Poisson": "probkit.models.moe",
    "moe.Softmax": "probkit.models.moe",
    "moe.SoftmaxMoE": "probkit.models.moe",
    "moe.StudentT": "probkit.models.moe",
    "moe.TopK": "probkit.models.moe",
    "normal_inverse_wishart.NormalInverseWishart": "probkit.distributions",
    "pde.Adam": "probkit.models.pde",
    "pde.Closed": "probkit.models.pde",
    "pde.GridGP": "probkit.models.pde",
    "pde.Problem": "probkit.models.pde",
    "pde.SpectralGP": "probkit.models.pde",
    "sbl.Classes": "probkit.models.sbl",
    "sbl.KroneckerSBL": "probkit.models.sbl",
    "sbl.LogisticSBL": "probkit.models.sbl",
    "sbl.LogisticTypeII": "probkit.models.sbl",
    "sbl.Measurements": "probkit.models.sbl",
    "sbl.Sequential": "probkit.models.sbl",
    "sbl.TypeII": "probkit.models.sbl",
    "tucker.Bernoulli": "probkit.models.tucker",
    "tucker.CP": "probkit.models.tucker",
    "tucker.Entries": "probkit.models.tucker",
    "tucker.Exchangeable": "probkit.models.tucker",
    "tucker.Factor": "probkit.models.tucker",
    "tucker.Gaussian": "probkit.models.tucker",
    "tucker.MessagePassing": "probkit.models.tucker",
    "tucker.Noise": "probkit.models.tucker",
    "tucker.Normal": "probkit.models.tucker",
    "tucker.Poisson": "probkit.models.tucker",
    "tucker.Posterior": "probkit.models.tucker",
    "tucker.Seasonal": "probkit.models.tucker",
    "tucker.Smooth": "probkit.models.tucker",
    "tucker.Space": "probkit.models.tucker",
    "tucker.StochasticMessagePassing": "probkit.models.tucker",
    "tucker.StudentT": "probkit.models.tucker",
    "tucker.Tucker": "probkit.models.tucker",
}
METHODS: dict[str, type[AbstractMethod]] = {
    family_name(method): method for method in (EM, MAP, NUTS, SVI)
}
APPROXIMATIONS: dict[str, type[AbstractApproximation]] = {
    family_name(kind): kind for kind in (Guide, Normal, Point)
}


def save(fitted: Fit, path: str | Path) -> Path:
    """Write a fit as a netCDF-4 file. The file appears complete, or not at all.

    Args:
        fitted: the fit. Its model may hold arrays, networks and other modules.
        path: the file, such as `"fit.nc"`.

    Returns:
        The path.

    Raises:
        ValueError: if an argument is not a fit or not a path, if the folder does not
            exist, or if the data are of your own class and a file cannot restore them.
    """
    refuse_wrong_types(("save(fit, ...)", fitted), ("save(..., path)", path))
    path = Path(path)
    if not path.parent.is_dir():
        raise ValueError(f"`save`: there is no folder `{path.parent}`; make it first.")
    data, approximation = fitted.data, fitted.approximation
    arrays: Arrays = {}
    found: Arrays = {}
    _refuse_lost_data(data)
    record = {
        "format": FORMAT,
        "model": describe(fitted.model, arrays),
        "data": {"class": family_name(type(data)), "fields": _static_fields(data)},
        "method": None if fitted.method is None else describe(fitted.method),
        "approximation": None if approximation is None else describe(approximation, found),
        "result": fitted.result,
        "facts": plain(dict(fitted.facts)),
        "record": plain(dict(fitted.record)),
    }
    tree = fitted.tree.copy()
    for group, held in ((MODEL, arrays), (APPROXIMATION, found)):
        if held:
            tree[group] = _unlabelled(held)
    tree.attrs = {**tree.attrs, RECORD: json.dumps(record)}
    write_atomically(path, lambda file: file.write(_netcdf(tree)))
    return path


def _unlabelled(arrays: Arrays):
    import xarray as xr

    return xr.Dataset(
        {
            name: ([f"{name}_dim_{k}" for k in range(array.ndim)], array)
            for name, array in arrays.items()
        }
    )


def _refuse_lost_data(data: AbstractData) -> None:
    """Refuse data of a user's class that a file cannot restore."""
    kind = type(data)
    if family_name(kind) in FAMILIES:
        return
    try:
        arrays = {k: np.asarray(v) for k, v in data.arrays().items()}
        fields = json.loads(json.dumps(_static_fields(data)))
        same = bool(eqx.tree_equal(data, kind.restore(arrays, fields)))
    except Exception:
        same = False
    if not same:
        raise ValueError(
            f"`save`: `{kind.__name__}.restore` does not give the same data back "
            "from its arrays and plain fields; define `arrays`, `fields` and `restore` so "
            "that it does."
        )


def _netcdf(tree) -> memoryview:
    # With checksums wherever HDF5 allows them, so that reading a damaged file raises.
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


def load(
    path: str | Path,
    families: Iterable[type] | Mapping[str, type] | None = None,
    *,
    model: AbstractModel | None = None,
) -> Fit:
    """Read a fit that `save` wrote.

    Args:
        path: the file.
        families: your own classes of models, data, methods and approximations, such as
            `[MyModel, MyData]`; or a dict of them by their names in the file,
            `{"mine.MyModel": MyModel}`.
        model: a model built like the saved one, with any values in its arrays. It is
            needed if the model holds a network, a function, or a module whose class is
            neither in probkit nor in `families`: the file has its name only. Its arrays
            are replaced by those of the file.

    Returns:
        The fit. Its `method` is None if the file cannot restore it, because it has your
        own optimiser or guide, or a class that is not in `families`. So is its
        `approximation`, and a warning has the reason.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the file is damaged, was not written by probkit or by a newer
            version, or has another model than `model`.
    """
    import xarray as xr

    refuse_wrong_types(("load(path)", path))
    path, known = Path(path), _by_name(families)
    if not path.exists():
        raise FileNotFoundError(f"`load`: there is no file `{path}`.")
    try:
        with xr.open_datatree(path, engine="h5netcdf") as lazy:
            tree = lazy.load()
    except Exception as error:
        # HDF5 raises many kinds of errors for an incomplete file.
        raise ValueError(
            f"`load`: `{path}` is damaged or no netCDF file ({_first_line(error)})."
        ) from None
    record = _record(tree, path)
    try:
        arrays = _arrays(tree, MODEL)
        if model is None:
            described = record["model"]
            cls = _class(described["class"], known, AbstractModel)
            fields = _with_modules(described["fields"], arrays, known)
            model = rebuild(cls, fields, arrays)
        else:
            model = refill(model, record["model"], arrays)
        data = _rebuild_data(record["data"], tree, known)
        method = _method(record["method"], known)
        described = record.get("approximation")
        approximation = _approximation(described, _arrays(tree, APPROXIMATION), known, path)
        result = _known_result(record["result"])
        facts, versions = dict(record["facts"]), dict(record["record"])
        _refuse_other_draws(tree, model, data)
    except KeyError as error:
        raise ValueError(
            f"`load`: the record in `{path}` is not right (it lacks {error})."
        ) from None
    except Exception as error:
        # A changed record can make a class raise any error.
        raise ValueError(
            f"`load`: the record in `{path}` is not right ({_first_line(error)})."
        ) from None
    for group in (MODEL, APPROXIMATION):
        if group in tree:
            del tree[group]
    return Fit(model, data, method, tree, result, facts, versions, approximation)


def _by_name(families: Iterable[type] | Mapping[str, type] | None) -> dict[str, type]:
    if families is None or isinstance(families, Mapping):
        return dict(families or {})
    classes = list(families)
    if not all(isinstance(cls, type) for cls in classes):
        raise ValueError(
            "`load(families=...)` takes classes, such as `[MyModel, MyData]`, or a dict of "
            "them by name."
        )
    return {family_name(cls): cls for cls in classes}


def _arrays(tree, *groups: str) -> Arrays:
    return {
        str(name): np.asarray(array.values)
        for group in groups
        if group in tree
        for name, array in tree[group].data_vars.items()
    }


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


def _class(name: str, families: Mapping[str, type], kind: type) -> Any:
    if name in families:
        cls = families[name]
    elif name in FAMILIES:
        module = importlib.import_module(FAMILIES[name])
        cls = getattr(module, name.rpartition(".")[2])
    else:
        raise ValueError(
            f"`{name}` is no family of probkit's; give its class, "
            f"`load(..., families=[{name.rpartition('.')[2]}])`"
        )
    # A family of an earlier version may be a function that makes one of today.
    made = inspect.signature(cls).return_annotation if inspect.isfunction(cls) else cls
    if not (isinstance(made, type) and issubclass(made, kind)):
        raise ValueError(f"`{name}` is no `{kind.__name__}`")
    return cls


def _with_modules(value: Any, arrays: Arrays, families: Mapping[str, type]) -> Any:
    """Descriptions of modules whose classes are known, such as kernels, as modules."""
    if isinstance(value, list):
        return [_with_modules(one, arrays, families) for one in value]
    if not isinstance(value, dict):
        return value
    inside = {k: _with_modules(v, arrays, families) for k, v in value.items()}
    name = inside.get("class")
    if set(inside) == {"class", "fields"} and (name in families or name in FAMILIES):
        return rebuild(_class(str(name), families, eqx.Module), inside["fields"], arrays)
    return inside


def _rebuild_data(described: Mapping[str, Any], tree, families):
    cls = _class(described["class"], families, AbstractData)
    arrays = _arrays(tree, "constant_data", "observed_data")
    return cls.restore(arrays, described["fields"])


def _method(described: Mapping[str, Any] | None, families) -> AbstractMethod | None:
    if described is None:
        return None
    name = described["class"]
    try:
        cls = METHODS.get(name) or _class(name, families, AbstractMethod)
        return rebuild(cls, described["fields"])
    except ValueError:
        # The file does not have the user's own guide or optimiser.
        return None


def _approximation(
    described: Mapping[str, Any] | None, arrays: Arrays, families, path: Path
) -> AbstractApproximation | None:
    if described is None:
        return None
    name = described["class"]
    try:
        cls = APPROXIMATIONS.get(name) or _class(name, families, AbstractApproximation)
        fields = _with_modules(described["fields"], arrays, families)
        return rebuild(cls, fields, arrays)
    except ValueError as error:
        # What to do about a function does not apply: no model has it.
        reason = _first_line(error).partition("; build the model")[0]
        warnings.warn(
            f"`load`: the draws of `{path}` are here, but not its approximation `{name}`: "
            f"{reason}.",
            stacklevel=3,
        )
        return None
