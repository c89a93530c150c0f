"""Fitting: from a model, data and a method to a labelled tree of draws."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.fits.predict import with_log_likelihood
from probkit.fits.relabel import relabelled
from probkit.fits.tree import tree_of
from probkit.fits.value import SAMPLE, Fit, FitError, refuse_wrong_types
from probkit.method import (
    RESULTS,
    AbstractApproximation,
    AbstractMethod,
    Draws,
    Running,
    Start,
    message,
)
from probkit.method.keys import two_keys
from probkit.method.loop import wants_progress
from probkit.method.programs import renew
from probkit.model import AbstractModel, Data
from probkit.model.density import asked, prior_draw
from probkit.model.labels import refuse_wrong_labels
from probkit.model.source import (
    AbstractHostSource,
    AbstractSource,
    example_of,
    refuse_other_shapes,
)
from probkit.record import versions
from probkit.settings import with_all_digits
from probkit.validate import as_key


@with_all_digits
def fit(
    model: AbstractModel,
    data: Data | AbstractSource,
    method: AbstractMethod,
    *,
    key: PRNGKeyArray,
    start: Fit | AbstractApproximation | None = None,
    progress: bool | None = None,
    checkpoint: str | Path | None = None,
    throw: bool = True,
    relabel: bool = True,
    log_likelihood: bool = False,
) -> Fit:
    """Fit `model` to `data` by `method`.

    Args:
        model: a model, such as `moe.MixtureOfExperts(num_experts=2)`.
        data: its data, such as `moe.Pairs(x, y)`; or, for SVI, a source of data by step
            (`AbstractSource`), of which the fit keeps the example.
        method: `pk.EM()`, `pk.MAP()`, `pk.SVI()`, `pk.NUTS()`, or a method of the family.
        key: a JAX random key, `jax.random.key(0)`. Equal keys give equal fits.
        start: an earlier fit of the same model. Chains, restarts and starts begin at draws
            chosen from it at random, all different if it has enough. A method that takes
            its approximation begins there instead: SVI at the parameters of a guide of
            the same kind, `tucker.MessagePassing` also at entries with other coordinates.
            Such an approximation may also be given by itself, as by `tucker.start_at`.
        progress: whether to show a bar on work of more than two seconds. By default it is
            shown in a terminal and in a notebook.
        checkpoint: a folder in which to keep the run. The same call after a kill resumes
            it, and ends with the draws of an uninterrupted run.
        throw: whether a run that did not succeed raises. If False, look at `fit.result`.
        relabel: whether to put the labels of a mixture into one order for all draws
            (`model.canonical`). Otherwise R-hat of labelled parameters has no meaning.
        log_likelihood: whether to compute the pointwise log likelihood, for `az.loo`.

    Returns:
        The `Fit`.

    Raises:
        ValueError: if the arguments do not fit together.
        FitError: if the run did not succeed and `throw` is True. The fit is in
            `error.fit`.
    """
    source = data
    data = example_of(source)
    refuse_wrong_types(
        ("fit(model, ...)", model),
        ("fit(..., data)", data),
        ("fit(..., method)", method),
        ("fit(start=...)", start),
        ("fit(checkpoint=...)", checkpoint),
    )
    key = as_key(key, "fit(key=...)")
    if isinstance(source, AbstractSource):
        _check_source(source, method)
    method.refuse(model, data)
    refuse_wrong_labels(model, data)
    renew("fit", model, partial(asked, model), data, key)
    if progress is None:
        progress = wants_progress()
    running = Running(progress, None if checkpoint is None else Path(checkpoint))
    key_run, key_start = two_keys(key)
    begin = None if start is None else _begin(start, model, data, method, key_start)
    draws = method.run(model, source, key_run, begin, running)
    fitted = _fit_of(draws, model, data, method, relabel)
    if log_likelihood:
        try:
            fitted = with_log_likelihood(fitted)
        except ValueError as error:  # too large; the fit in the error keeps the draws
            raise FitError(str(error), fitted) from None
    return _refused(fitted) if throw else fitted


@with_all_digits
def update(
    fitted: Fit,
    data: Data,
    *,
    key: PRNGKeyArray,
    method: AbstractMethod | None = None,
    progress: bool | None = None,
    throw: bool = True,
    relabel: bool = True,
) -> Fit:
    """Fit new observations, with the posterior of an earlier fit as their prior.

    The earlier observations are not used, and need not be kept. If you have them, fit all
    together, `pk.fit(..., start=fitted)`: this is at least as exact. With
    `tucker.MessagePassing`, kernels and scales stay those of the earlier fit.

    Args:
        fitted: the earlier fit, by a method that can do this: `tucker.MessagePassing`.
        data: the new observations, and these only.
        key: a JAX random key.
        method: the method, by default that of the earlier fit.
        progress: as for `fit`.
        throw: as for `fit`.
        relabel: as for `fit`.

    Returns:
        A fit given all observations so far, which can be updated again. Its `data` are
        the new ones.

    Raises:
        ValueError: if the method cannot do this, or the data do not fit the fit.
        FitError: as for `fit`.
    """
    refuse_wrong_types(("update(fit, ...)", fitted), ("update(..., data)", data))
    method = fitted.method if method is None else method
    refuse_wrong_types(("update(..., method)", method))
    assert method is not None
    key = as_key(key, "update(key=...)")
    model = fitted.model
    data, prior = method.prior_of(fitted.approximation, model, fitted.data, data)
    method.refuse(model, data)
    running = Running(wants_progress() if progress is None else progress)
    begin = _in_lanes(prior, method.num_lanes)
    draws = method.run(model, data, two_keys(key)[0], begin, running)
    again = _fit_of(draws, model, data, method, relabel)
    return _refused(again) if throw else again


def _fit_of(draws: Draws, model, data, method, relabel: bool) -> Fit:
    """The fit of a run."""
    model = draws.model or model
    data = data if draws.data is None else draws.data
    result = _name(draws.result)
    if not draws.sites:
        # Without draws there is no tree to return.
        raise FitError(_message(method, result), None)
    if relabel:
        draws = _relabelled(draws, model, data)
    fitted = Fit(
        model,
        data,
        method,
        tree_of(draws, model, data),
        result,
        draws.facts,
        versions(),
        draws.approximation,
    )
    if draws.integrated is not None:
        fitted.kept[tuple(range(fitted.posterior.sizes["draw"]))] = draws.integrated
    return fitted


def _refused(fitted: Fit) -> Fit:
    """The fit, if its run succeeded."""
    if fitted.result != "successful":
        raise FitError(_message(fitted.method, fitted.result), fitted)
    return fitted


def _check_source(source: AbstractSource, method: AbstractMethod) -> None:
    """Refuse a source that the method does not take; trace it if its code may change."""
    if not method.by_step:
        name = type(method).__name__
        raise ValueError(
            f"`fit(..., {type(source).__name__})` has other data for each step, and "
            f"`{name}` uses all data in each step; give it arrays, or use `pk.SVI()`."
        )
    refuse_other_shapes(source)
    if not isinstance(source, AbstractHostSource):
        renew("source", source, source.at, jnp.zeros((), jnp.int32))


def _name(result) -> str:
    for name in RESULTS._name_to_item:
        if bool(result == getattr(RESULTS, name)):
            return name
    raise AssertionError("a result is an item of RESULTS")


def _message(method, result: str) -> str:
    return f"{type(method).__name__}: {message(getattr(RESULTS, result))}"


def _begin(start: Fit | AbstractApproximation, model, data, method, key) -> Start:
    """The approximation of an earlier fit, or draws of it, all different if enough."""
    lanes = method.num_lanes
    if isinstance(start, AbstractApproximation):
        if not method.starts_at(start, model, data):
            raise ValueError(
                f"`fit(start=...)` got a `{type(start).__name__}`, at which "
                f"`{type(method).__name__}` of `{type(model).__name__}` cannot start; give "
                "an earlier fit."
            )
        return _in_lanes(start, lanes)
    earlier = start.approximation
    if earlier is not None:
        moved = method.moved(earlier, model, start.data, data)
        if moved is not None:
            return _in_lanes(moved, lanes)
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
    count = posterior.sizes["sample"]
    if earlier is not None and method.starts_at(earlier, model, data):
        return _in_lanes(earlier, lanes)
    rows = np.asarray(jax.random.choice(key, count, (lanes,), replace=count < lanes))
    return {name: jnp.asarray(posterior[name].values[rows]) for name in shapes}


def _in_lanes(approximation: AbstractApproximation, lanes: int) -> AbstractApproximation:
    return jax.tree.map(lambda a: jnp.broadcast_to(a, (lanes, *a.shape)), approximation)


def _relabelled(draws: Draws, model, data) -> Draws:
    # The reference is the draw with the highest density, or the first if none is known.
    best = int(np.argmax(draws.stats["lp"])) if "lp" in draws.stats else 0
    reference = {
        k: jnp.asarray(v.reshape(-1, *v.shape[2:])[best]) for k, v in draws.sites.items()
    }
    return replace(draws, sites=relabelled(draws.sites, model, data, reference))
