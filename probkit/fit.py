"""Fitting: a model, data and a method become a labelled tree of draws."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import PRNGKeyArray

from probkit.method import RESULTS, AbstractMethod, Draws, Running, message
from probkit.method.batches import map_in_batches
from probkit.method.loop import wants_progress
from probkit.model import AbstractData, AbstractModel, Data
from probkit.model.density import (
    Sites,
    latent_names,
    observed_names,
    prior_draw,
)
from probkit.record import versions
from probkit.validate import as_key

SAMPLE = ("chain", "draw")


class FitError(RuntimeError):
    """A run that did not succeed. `error.fit` has what it left, or None."""

    def __init__(self, message: str, fit: "Fit | None"):
        super().__init__(message)
        self.fit = fit


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        model: the model.
        data: the data it was fitted to.
        method: the method, or None if it could not be rebuilt from a file.
        tree: an ArviZ `DataTree`: `posterior`, `sample_stats`, `trace`, `observed_data`,
            `constant_data`, and on request `log_likelihood`.
        result: how the run ended, the name of an item of `RESULTS`.
        facts: what the method measured of its own run.
        record: versions of the libraries that the fit was made with.
    """

    model: AbstractModel
    data: Data
    method: AbstractMethod | None
    tree: Any
    result: str
    facts: Mapping[str, float]
    record: Mapping[str, Any]

    @property
    def posterior(self):
        """The posterior draws, an xarray `Dataset` over chain, draw and named axes."""
        return self.tree["posterior"].to_dataset()

    def sites(self, chain: int = 0, draw: int = 0) -> Sites:
        """One draw of the latent sites, for the functions of the model."""
        one = self.posterior.isel(chain=chain, draw=draw)
        names = latent_names(self.model, self.data)
        return {name: jnp.asarray(one[name].values) for name in names}

    def __repr__(self) -> str:
        method = type(self.method).__name__ if self.method is not None else "?"
        sizes = self.tree["posterior"].sizes
        return (
            f"<Fit of {type(self.model).__name__} by {method}: "
            f"{sizes['chain']} chains x {sizes['draw']} draws of "
            f"{', '.join(map(str, self.tree['posterior'].data_vars))}; {self.result}>"
        )


def fit(
    model: AbstractModel,
    data: Data,
    method: AbstractMethod,
    *,
    key: PRNGKeyArray,
    start: Fit | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    throw: bool = True,
    relabel: bool = True,
    log_likelihood: bool = False,
) -> Fit:
    """Fit `model` to `data` by `method`.

    Args:
        model: a model, such as `moe.SoftmaxMoE(num_experts=2)`.
        data: its data, such as `moe.Pairs(x, y)`.
        method: `pk.EM()`, `pk.SVI()`, `pk.NUTS()`, or a method of the family's own.
        key: a JAX random key, `jax.random.key(0)`. Equal keys give equal fits.
        start: an earlier fit of the same model: chains and restarts begin at its draws.
        progress: whether to show a bar on work of over two seconds; by default in a
            terminal and in a notebook.
        checkpoint: a folder to keep the run in. The same call after a kill goes on from
            there, and ends with the draws of an uninterrupted run.
        throw: raise on a run that did not succeed; with False, look at `fit.result`.
        relabel: put the draws of a mixture under one order of labels
            (`model.canonical`). Without it, R-hat of labelled parameters means little.
        log_likelihood: compute the pointwise log likelihood, for `az.loo`.

    Returns:
        The `Fit`.

    Raises:
        ValueError: if the arguments do not fit together.
        FitError: if the run did not succeed and `throw` is set; it has the fit.
    """
    _refuse_wrong_types(model, data, method, start, checkpoint)
    key = as_key(key, "fit(key=...)")
    if progress is None:
        progress = wants_progress()
    running = Running(progress, None if checkpoint is None else Path(checkpoint))
    key_run, key_start = jax.random.split(key)
    begin = None if start is None else _start_sites(start, model, data, method, key_start)
    draws = method.run(model, data, key_run, begin, running)
    result = _name(draws.result)
    if not draws.sites:
        # Nothing was drawn, so there is no tree to hand back.
        raise FitError(_message(method, result), None)
    if relabel:
        draws = _relabelled(draws, model, data)
    fitted = Fit(
        model,
        data,
        method,
        _tree(draws, model, data),
        result,
        draws.facts,
        versions(),
    )
    if log_likelihood:
        fitted = with_log_likelihood(fitted)
    if throw and result != "successful":
        raise FitError(_message(method, result), fitted)
    return fitted


def _refuse_wrong_types(model, data, method, start, checkpoint) -> None:
    examples = {
        "fit(model, ...)": "a probkit model, such as `moe.SoftmaxMoE(num_experts=2)`",
        "fit(..., data)": "the data of a family, such as `moe.Pairs(x, y)`",
        "fit(..., method)": "`pk.EM()`, `pk.SVI()` or `pk.NUTS()`",
        "fit(start=...)": "an earlier `Fit`, what `pk.fit` returns",
        "fit(checkpoint=...)": "the path of a folder",
    }
    kinds = AbstractModel, AbstractData, AbstractMethod, Fit | None, str | Path | None
    given = model, data, method, start, checkpoint
    for value, kind, (what, example) in zip(given, kinds, examples.items(), strict=True):
        if not isinstance(value, kind):
            raise ValueError(f"`{what}` got {_named(value)}; it takes {example}.")


def _named(value) -> str:
    if isinstance(value, type):
        return f"the class `{value.__name__}`, without its `(...)`"
    return f"a value of type `{type(value).__name__}`"


def _refuse_no_fit(fitted, what: str) -> None:
    if not isinstance(fitted, Fit):
        raise ValueError(f"`{what}` got {_named(fitted)}; it takes what `pk.fit` returns.")


def _name(result) -> str:
    for name in RESULTS._name_to_item:
        if bool(result == getattr(RESULTS, name)):
            return name
    raise AssertionError("a result is an item of RESULTS")


def _message(method, result: str) -> str:
    return f"{type(method).__name__}: {message(getattr(RESULTS, result))}"


def _num_lanes(method) -> int:
    for name in ("num_chains", "num_restarts", "num_starts"):
        if hasattr(method, name):
            return getattr(method, name)
    return 1


def _start_sites(start: Fit, model, data, method, key) -> Sites:
    """Draws of an earlier fit, one a lane: all different if there are enough."""
    posterior = start.posterior.stack(sample=SAMPLE).transpose("sample", ...)
    shapes = jax.eval_shape(lambda: prior_draw(model, data, key))
    for name, wanted in shapes.items():
        if name not in posterior:
            raise ValueError(
                f"`fit(start=...)` is a fit of `{type(start.model).__name__}` and has no "
                f"`{name}`; start from a fit of `{type(model).__name__}`."
            )
        found = posterior[name].shape[1:]
        if found != wanted.shape:
            raise ValueError(
                f"`fit(start=...)` has `{name}` of shape {found}, but this model and data "
                f"want {wanted.shape}; start from a fit of an equal model."
            )
    count, lanes = posterior.sizes["sample"], _num_lanes(method)
    rows = np.asarray(jax.random.choice(key, count, (lanes,), replace=count < lanes))
    return {name: jnp.asarray(posterior[name].values[rows]) for name in shapes}


@eqx.filter_jit
def _canonical_all(model, data, sites, pivot):
    reference = model.canonical(pivot, data)
    # One draw at a time: a relabelling may look at every observation.
    return map_in_batches(lambda one: model.canonical(one, data, reference), sites)


def _relabelled(draws: Draws, model, data) -> Draws:
    if type(model).canonical is AbstractModel.canonical:
        return draws
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in draws.sites.items()}
    shape = next(iter(draws.sites.values())).shape[:2]
    # The reference is the draw of highest density, the first where there is no density.
    best = int(np.argmax(draws.stats["lp"])) if "lp" in draws.stats else 0
    pivot = {k: jnp.asarray(v[best]) for k, v in flat.items()}
    flat = jax.device_get(_canonical_all(model, data, flat, pivot))
    sites = {k: v.reshape(*shape, *v.shape[1:]) for k, v in flat.items()}
    return Draws(sites, draws.stats, draws.trace, draws.result, draws.facts)


def data_arrays(data: Data) -> dict[str, np.ndarray]:
    """The arrays of data on the host, by their names."""
    return {k: np.asarray(v) for k, v in data.arrays().items()}


def _tree(draws: Draws, model, data):
    import arviz_base as azb

    arrays = data_arrays(data)
    observed = set(observed_names(model, data))
    groups = {
        "posterior": draws.sites,
        "sample_stats": draws.stats,
        "observed_data": {k: v for k, v in arrays.items() if k in observed},
        "constant_data": {k: v for k, v in arrays.items() if k not in observed},
    }
    tree = azb.from_dict(
        {name: group for name, group in groups.items() if group},
        dims={k: list(v) for k, v in model.dims(data).items()},
        coords=_coords(model, data),
    )
    if draws.trace:
        tree["trace"] = _trace_dataset(draws.trace)
    return tree


def _coords(model, data) -> dict[str, Any]:
    return {k: np.asarray(v) for k, v in model.coords(data).items()}


def _trace_dataset(trace: dict[str, np.ndarray]):
    import xarray as xr

    steps = {k: v for k, v in trace.items() if v.shape[1] != 1}
    once = {k: v[:, 0] for k, v in trace.items() if v.shape[1] == 1}
    return xr.Dataset(
        {k: (("lane", "step"), v) for k, v in steps.items()}
        | {k: (("lane",), v) for k, v in once.items()}
    )


# What is computed from the draws of a fit.


def draws_of(fitted: Fit) -> Sites:
    """The latent sites of every draw, `{site: array[chain, draw, ...]}`."""
    names = latent_names(fitted.model, fitted.data)
    return {name: jnp.asarray(fitted.posterior[name].values) for name in names}


@eqx.filter_jit
def _map_draws(function, model, sites, keys, *args):
    """`function(model, one draw, *args, key)` for every draw, chain by chain."""

    def one(pair):
        sites, key = pair
        return function(model, sites, *args, key)

    flat, keys = jax.tree.map(lambda a: a.reshape(-1, *a.shape[2:]), (sites, keys))
    out = map_in_batches(one, (flat, keys))
    shape = jax.tree.leaves(sites)[0].shape[:2]
    return jax.tree.map(lambda a: a.reshape(*shape, *a.shape[1:]), out)


def _each_draw(function, fitted: Fit, key, *args) -> dict[str, np.ndarray]:
    sites = draws_of(fitted)
    shape = jax.tree.leaves(sites)[0].shape[:2]
    keys = jax.random.split(key, shape)
    return jax.device_get(_map_draws(function, fitted.model, sites, keys, *args))


def _dataset(arrays: Sites, fitted: Fit, coords: dict[str, Any]):
    import arviz_base as azb

    named = fitted.model.dims(fitted.data)
    dims: dict[Any, Any] = {k: list(v) for k, v in named.items()}
    return azb.dict_to_dataset(arrays, dims=dims, coords=coords)


def _predict_one(model, sites, inputs, key):
    return model.predict(sites, inputs, key)


def _recover_one(model, sites, data, key):
    return model.recover(sites, data, key)


def _score_one(model, sites, data, key):
    return model.pointwise(sites, data)


def predict(fitted: Fit, inputs: Any, *, key: PRNGKeyArray):
    """Posterior predictive draws at new inputs.

    Args:
        fitted: a fit.
        inputs: what the family takes: for a regression, `x` in the shape of the fit's.
        key: a JAX random key.

    Returns:
        An xarray `Dataset` over `chain`, `draw` and the family's named axes. Its
        variables are the family's (see its `predict`); `y` is a new observation.
    """
    _refuse_no_fit(fitted, "predict(fit, ...)")
    key = as_key(key, "predict(key=...)")
    given = fitted.model.inputs(inputs, fitted.data)
    arrays = _each_draw(_predict_one, fitted, key, given)
    # The axes of the data have other entries at new inputs.
    dims = fitted.model.dims(fitted.data)
    observed = {a for name in observed_names(fitted.model, fitted.data) for a in dims[name]}
    coords = fitted.model.coords(fitted.data)
    return _dataset(arrays, fitted, {k: v for k, v in coords.items() if k not in observed})


def recover(fitted: Fit, *, key: PRNGKeyArray):
    """Draws of what the model integrated out: labels, coefficients, functions.

    Returns:
        An xarray `Dataset` over `chain`, `draw` and the family's named axes; empty for a
        model that integrates nothing out.
    """
    _refuse_no_fit(fitted, "recover(fit, ...)")
    key = as_key(key, "recover(key=...)")
    arrays = _each_draw(_recover_one, fitted, key, fitted.data)
    return _dataset(arrays, fitted, fitted.model.coords(fitted.data))


def with_log_likelihood(fitted: Fit) -> Fit:
    """The same fit with a group `log_likelihood`, one number an observation and draw.

    It is the model's `pointwise`: where observations depend on each other, that of each
    given all the others.
    """
    arrays = _each_draw(_score_one, fitted, jax.random.key(0), fitted.data)
    tree = fitted.tree.copy()
    tree["log_likelihood"] = _dataset(arrays, fitted, _coords(fitted.model, fitted.data))
    return Fit(**{**vars(fitted), "tree": tree})


@eqx.filter_jit
def _prior_draws(model, data, keys):
    def one(key):
        program = numpyro.handlers.uncondition(numpyro.handlers.seed(model, key))
        trace = numpyro.handlers.trace(program).get_trace(data)
        kinds = ("sample", "deterministic")
        return {k: v["value"] for k, v in trace.items() if v["type"] in kinds}

    return map_in_batches(one, keys)


def prior(model: AbstractModel, data: Data, *, key: PRNGKeyArray, num_draws: int = 500):
    """Draws of the parameters, and of data like `data`, before seeing any.

    Returns:
        A `DataTree` with groups `prior` and `prior_predictive`, one chain.
    """
    import arviz_base as azb

    arrays = jax.device_get(_prior_draws(model, data, jax.random.split(key, num_draws)))
    observed = observed_names(model, data)
    one_chain = {k: v[None] for k, v in arrays.items()}
    return azb.from_dict(
        {
            "prior": {k: v for k, v in one_chain.items() if k not in observed},
            "prior_predictive": {k: one_chain[k] for k in observed},
        },
        dims={k: list(v) for k, v in model.dims(data).items()},
        coords=_coords(model, data),
    )


def typical_draw(fitted: Fit) -> Sites:
    """The draw of highest density, or the first: a place to look at the model from."""
    sites = draws_of(fitted)
    flat = {k: v.reshape(-1, *v.shape[2:]) for k, v in sites.items()}
    stats = fitted.tree.get("sample_stats")
    best = int(np.argmax(stats["lp"].values)) if stats is not None and "lp" in stats else 0
    return {k: v[best] for k, v in flat.items()}
