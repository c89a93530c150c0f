"""Predictions and other functions of the draws of a fit, and draws of the prior."""

import math
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jaxtyping import PRNGKeyArray

from probkit.fits.relabel import relabelled
from probkit.fits.tree import coords_of, dataset_of, tree_of
from probkit.fits.value import (
    Fit,
    draws_of,
    refuse_no_fit,
    refuse_wrong_types,
    typical,
)
from probkit.method import Draws
from probkit.method.batches import map_in_batches
from probkit.method.integrated import has_own, integrate, integrate_one
from probkit.method.keys import split_keys, two_keys
from probkit.method.programs import is_ours, jit_for_one_run, one_of, renew
from probkit.model import AbstractData, AbstractModel, Data, Sites
from probkit.model.density import observed_names, outline
from probkit.model.labels import refuse_wrong_labels
from probkit.settings import with_all_digits
from probkit.validate import as_key, whole

# A larger result is refused before it is computed: 2 GiB in float64.
MOST_NUMBERS = 2**28
# What is kept of all draws between calls has at most so many: 256 MiB.
MOST_KEPT = 2**25


@with_all_digits
def predict(fitted: Fit, inputs: Any, *, key: PRNGKeyArray, num_draws: int | None = None):
    """Posterior predictive draws at new inputs.

    Args:
        fitted: a fit.
        inputs: what the family takes; for a regression, `x` with as many columns as in
            the fit. For a model without `inputs` of its own: an array if there is one
            input, a dict with one array per input, or the number of observations to
            predict if there are no inputs.
        key: a JAX random key.
        num_draws: the number of posterior draws to use, evenly spaced and rounded up to
            the same number per chain. By default all are used. If the fit has fewer and
            an approximation, as many are drawn from that, as one chain.

    Returns:
        An xarray `Dataset` over `chain`, `draw` and the named axes of the family. Its
        variables are those of the family's `predict`, in the units of the data. `y` is a
        new observation.

    Raises:
        ValueError: if the inputs do not fit the model, or the result has more than
            `MOST_NUMBERS` numbers.
    """
    refuse_no_fit(fitted, "predict(fit, ...)")
    key = as_key(key, "predict(key=...)")
    fitted, key = _with_draws(fitted, num_draws, key, "predict")
    draws = Thinned.of(fitted, num_draws, "predict")
    given = fitted.model.inputs(inputs, fitted.data)
    arrays = draws.each_integrated(_predict_one, key, given)
    return draws.dataset(arrays, *labels_at(fitted, given))


def labels_at(fitted: Fit, given: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Labels along the axes of predictions, and the names of these axes.

    Args:
        fitted: a fit.
        given: what `model.inputs` returned.
    """
    model = fitted.model
    coords = coords_elsewhere(fitted) | model.coords_at(given)
    return coords, model.dims_at(given, fitted.data)


def coords_elsewhere(fitted: Fit) -> dict[str, Any]:
    """The labels of all axes but those whose entries are other ones at new inputs."""
    model, data = fitted.model, fitted.data
    dims = model.dims(data)
    by_row = data.rows() if type(data).take is AbstractData.take else {}
    gone = {
        axis
        for name in observed_names(model, data)
        for axis in (dims[name][:1] if name in by_row else dims[name])
    }
    return {k: v for k, v in model.coords(data).items() if k not in gone}


@with_all_digits
def recover(fitted: Fit, *, key: PRNGKeyArray, num_draws: int | None = None):
    """Draws of what the model integrated out: labels, coefficients, functions.

    Args:
        fitted: a fit.
        key: a JAX random key.
        num_draws: as for `predict`.

    Returns:
        An xarray `Dataset` over `chain`, `draw` and the named axes of the family. It is
        empty if the model integrates nothing out.

    Raises:
        ValueError: if the result has more than `MOST_NUMBERS` numbers.
    """
    refuse_no_fit(fitted, "recover(fit, ...)")
    key = as_key(key, "recover(key=...)")
    fitted, key = _with_draws(fitted, num_draws, key, "recover")
    draws = Thinned.of(fitted, num_draws, "recover")
    arrays = draws.each_integrated(_recover_one, key, fitted.data)
    return draws.dataset(arrays, coords_of(fitted.model, fitted.data))


@with_all_digits
def with_log_likelihood(fitted: Fit, *, num_draws: int | None = None) -> Fit:
    """The same fit with a group `log_likelihood`: one number per observation and draw.

    The numbers are log densities, in nats, from the model's `pointwise`. If observations
    depend on each other, they are those of each observation given all the others.

    Args:
        fitted: a fit.
        num_draws: as for `predict`, but never more than the fit has.

    Returns:
        A new `Fit`. The given one does not change.

    Raises:
        ValueError: if the result has more than `MOST_NUMBERS` numbers.
    """
    refuse_no_fit(fitted, "with_log_likelihood(fit)")
    draws = Thinned.of(fitted, num_draws, "with_log_likelihood")
    arrays = draws.each(_score_one, jax.random.key(0), fitted.data)
    tree = fitted.tree.copy()
    coords = coords_of(fitted.model, fitted.data)
    tree["log_likelihood"] = draws.dataset(arrays, coords)
    return Fit(**{**vars(fitted), "tree": tree})


@with_all_digits
def prior(model: AbstractModel, data: Data, *, key: PRNGKeyArray, num_draws: int = 500):
    """Draws from the prior: of the latent sites, and of data like `data`.

    Args:
        model: a model.
        data: its data, for their shapes and inputs. Observed values are not used, except
            where the family derives its units from them.
        key: a JAX random key.
        num_draws: the number of draws.

    Returns:
        A `DataTree` with groups `prior` and `prior_predictive`, one chain.

    Raises:
        ValueError: if an argument has the wrong type, or the result has more than
            `MOST_NUMBERS` numbers.
    """
    import arviz_base as azb

    refuse_wrong_types(("prior(model, ...)", model), ("prior(..., data)", data))
    key = as_key(key, "prior(key=...)")
    num_draws = whole("prior(num_draws", 1)(num_draws)
    refuse_wrong_labels(model, data)
    shapes, _, observed = outline(model, data)
    _refuse_size({k: (num_draws, *v) for k, v in shapes.items()}, num_draws, "prior")
    renew("prior", model, partial(_prior_draw, model), data, key)
    arrays = jax.device_get(_prior_draws(model, data, jax.random.split(key, num_draws)))
    one_chain = {k: v[None] for k, v in arrays.items()}
    return azb.from_dict(
        {
            "prior": {k: v for k, v in one_chain.items() if k not in observed},
            "prior_predictive": {k: one_chain[k] for k in observed},
        },
        dims={k: list(v) for k, v in model.dims(data).items()},
        coords=coords_of(model, data),
    )


def _prior_draw(model, data, key):
    program = numpyro.handlers.uncondition(numpyro.handlers.seed(model, key))
    trace = numpyro.handlers.trace(program).get_trace(data)
    kinds = ("sample", "deterministic")
    return {k: v["value"] for k, v in trace.items() if v["type"] in kinds}


@eqx.filter_jit
def _prior_draws(model, data, keys):
    return map_in_batches(lambda key: _prior_draw(model, data, key), keys)


# More draws than a fit has, from its approximation.


def _with_draws(fitted: Fit, num_draws: int | None, key: PRNGKeyArray, caller: str):
    """The fit with `num_draws` draws or more, if it can have them, and a key for the rest.

    Raises:
        ValueError: if new draws have more than `MOST_NUMBERS` numbers.
    """
    if num_draws is None or fitted.approximation is None:
        return fitted, key
    num_draws = whole(f"{caller}(num_draws", 1)(num_draws)
    sizes = fitted.posterior.sizes
    if num_draws <= sizes["chain"] * sizes["draw"]:
        return fitted, key
    key, key_draws = two_keys(key)
    model, data, approximation = fitted.model, fitted.data, fitted.approximation
    args = (model, data, key_draws, num_draws)
    shapes = eqx.filter_eval_shape(approximation.sample, *args)
    _refuse_size({k: v.shape for k, v in shapes.items()}, num_draws, caller)
    renew("sample", model, _sampled, approximation, *args)
    one_chain = {k: v[None] for k, v in _sampled(approximation, *args).items()}
    # Of the draws that the fit has, which are in one order.
    reference = fitted.sites(*divmod(typical(fitted), sizes["draw"]))
    sites = relabelled(one_chain, model, data, reference)
    tree = tree_of(Draws(jax.device_get(sites), {}, {}, None), model, data)
    return replace(fitted, tree=tree, kept={}), key


@eqx.filter_jit
def _sampled(approximation, model, data, key, num_draws):
    return approximation.sample(model, data, key, num_draws)


# A function of the model for every draw.


@dataclass(frozen=True)
class Thinned:
    """The draws of a fit that a computation uses: all, or some, evenly spaced.

    Attributes:
        fitted: the fit.
        picked: numbers of the draws, the same for each chain.
        caller: the name of the public function, for messages.
    """

    fitted: Fit
    picked: np.ndarray
    caller: str

    @classmethod
    def of(cls, fitted: Fit, num_draws: int | None, caller: str) -> "Thinned":
        """At least `num_draws` draws, with the same number per chain, or all if None."""
        sizes = fitted.posterior.sizes
        per_chain, every = sizes["draw"], np.arange(sizes["draw"])
        if num_draws is not None:
            wanted = whole(f"{caller}(num_draws", 1)(num_draws)
            per_chain = min(-(-wanted // sizes["chain"]), per_chain)
            every = np.linspace(0, sizes["draw"] - 1, per_chain).round().astype(int)
        return cls(fitted, every, caller)

    def each(self, function, key: PRNGKeyArray, *args) -> dict[str, np.ndarray]:
        """A function of one draw, for each of the draws.

        Args:
            function: `function(model, one draw, *args, key)`, to `{name: array}`.
            key: a JAX random key, split over the draws.
            *args: what all draws get.

        Returns:
            `{name: array[chain, draw, ...]}`.

        Raises:
            ValueError: if the result is too large.
        """
        return self._mapped(function, self.flat(), key, args)

    def each_integrated(self, function, key: PRNGKeyArray, *args) -> dict[str, np.ndarray]:
        """The same of a function that takes what `model.integrated` returns."""
        kept = self._integrated()
        if kept is None:
            return self._mapped(
                _after, self.flat(), key, (function, self.fitted.data, *args)
            )
        return self._mapped(function, kept, key, args)

    def flat(self) -> Sites:
        """The draws, one after another."""
        # By NumPy, because each step of JAX would be a program of its own.
        draws = {k: np.asarray(v)[:, self.picked] for k, v in draws_of(self.fitted).items()}
        return jax.device_put({k: v.reshape(-1, *v.shape[2:]) for k, v in draws.items()})

    def _integrated(self) -> Any:
        """`model.integrated` of each draw, kept with the fit; None if that is too much."""
        fitted, sites = self.fitted, self.flat()
        model = fitted.model
        if not has_own(model):
            return sites
        # A user's own model may change, and what was kept would not.
        if not is_ours(model):
            return None
        count = len(jax.tree.leaves(sites)[0])
        if count > 1 and count * _size_of_integrated(model, fitted.data, sites) > MOST_KEPT:
            return None
        picked = tuple(self.picked)
        if picked not in fitted.kept:
            fitted.kept.clear()
            fitted.kept[picked] = integrate(model, fitted.data, sites)
        return fitted.kept[picked]

    def _mapped(self, function, given, key: PRNGKeyArray, args) -> dict[str, np.ndarray]:
        model, count = self.fitted.model, len(jax.tree.leaves(given)[0])
        shape = (self.fitted.posterior.sizes["chain"], len(self.picked))
        one = one_of(given)
        out = eqx.filter_eval_shape(function, model, one, *args, key)
        sizes = {name: (*shape, *a.shape) for name, a in out.items()}
        _refuse_size(sizes, count, self.caller)
        renew(self.caller, model, partial(function, model), one, *args, key)
        keys = split_keys(key, count)
        found = jax.device_get(_map_draws(function, model, given, keys, *args))
        return {k: v.reshape(*shape, *v.shape[1:]) for k, v in found.items()}

    def dataset(
        self, arrays: Sites, coords: dict[str, Any], dims: dict[str, Any] | None = None
    ):
        """An xarray `Dataset` of the arrays. `draw` has the labels that the fit has."""
        labels = self.fitted.posterior["draw"].values[self.picked]
        return dataset_of(arrays, self.fitted, coords | {"draw": labels}, dims=dims)


def typical_integrated(fitted: Fit) -> Any:
    """What `model.integrated` makes of the draw with the highest density."""
    every, best = Thinned.of(fitted, None, "diagnose"), typical(fitted)
    kept = fitted.kept.get(tuple(every.picked))
    if kept is not None:
        return jax.tree.map(lambda a: a[best], kept)
    sites = {k: jnp.asarray(np.asarray(v)[best]) for k, v in every.flat().items()}
    model = fitted.model
    if not has_own(model):
        return sites
    renew("diagnose", model, model.integrated, sites, fitted.data)
    return integrate_one(model, fitted.data, sites)


def _size_of_integrated(model: AbstractModel, data: Data, sites: Sites) -> int:
    """How many numbers there are for one draw."""
    one = jax.tree.map(lambda a: a[0], sites)
    shapes = eqx.filter_eval_shape(lambda one: model.integrated(one, data), one)
    return sum(math.prod(a.shape) for a in jax.tree.leaves(shapes))


def _refuse_size(shapes: dict[str, tuple[int, ...]], draws: int, caller: str) -> None:
    if not shapes:
        return
    count = sum(map(math.prod, shapes.values()))
    if count > MOST_NUMBERS:
        largest = max(shapes, key=lambda name: math.prod(shapes[name]))
        fewer = max(1, draws * MOST_NUMBERS // count)
        raise ValueError(
            f"`{caller}`: {draws:,} draws make {count:,} numbers, `{largest}` of shape "
            f"{shapes[largest]} among them, over the limit of {MOST_NUMBERS:,}; use fewer "
            f"draws, `num_draws={fewer}`, or fewer inputs at a time."
        )


def _map_draws_of(function, model, given, keys, *args):
    """`function(model, one draw, *args, key)` for every draw."""
    return map_in_batches(
        lambda pair: function(model, pair[0], *args, pair[1]), (given, keys)
    )


_map_draws = jit_for_one_run(_map_draws_of, lambda _, __, ___, keys, *args: len(keys) == 1)


def _after(model, sites, function, data, *args):
    return function(model, model.integrated(sites, data), *args)


def _predict_one(model, given, inputs, key):
    return model.predict(given, inputs, key)


def _recover_one(model, given, data, key):
    return model.recover(given, data, key)


def _score_one(model, sites, data, key):
    return model.pointwise(sites, data)
