"""From arrays to a labelled tree or data set."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from probkit.fits.value import SAMPLE, Fit
from probkit.method import Draws
from probkit.model import Data
from probkit.model.density import Sites, observed_names


def data_arrays(data: Data) -> dict[str, np.ndarray]:
    """The arrays of data as NumPy arrays, by their names."""
    return {k: np.asarray(v) for k, v in data.arrays().items()}


def tree_of(draws: Draws, model, data):
    """The labelled tree of a fit.

    Args:
        draws: what a method returned.
        model: the model.
        data: its data.

    Returns:
        An ArviZ `DataTree`, with the groups that have variables.
    """
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
        coords=coords_of(model, data),
    )
    if draws.trace:
        tree["trace"] = _trace_dataset(draws.trace)
    return tree


def coords_of(model, data) -> dict[str, Any]:
    """The labels along the named axes, as NumPy arrays."""
    return {k: np.asarray(v) for k, v in model.coords(data).items()}


def dataset_of(
    arrays: Sites,
    fitted: Fit,
    coords: dict[str, Any],
    sample_dims: Sequence[str] = SAMPLE,
    dims: dict[str, tuple[str, ...]] | None = None,
):
    """A labelled data set of computed arrays.

    Args:
        arrays: `{name: array[chain, draw, ...]}`, or with other first axes.
        fitted: the fit, for the names of the axes.
        coords: labels along them.
        sample_dims: names of the first axes.
        dims: names of the others, by default those of the data of the fit.

    Returns:
        An xarray `Dataset`.
    """
    import arviz_base as azb

    named = fitted.model.dims(fitted.data) if dims is None else dims
    lists: dict[Any, Any] = {k: list(v) for k, v in named.items()}
    return azb.dict_to_dataset(
        arrays, dims=lists, coords=coords, sample_dims=list(sample_dims)
    )


def _trace_dataset(trace: dict[str, np.ndarray]):
    import xarray as xr

    steps = {k: v for k, v in trace.items() if v.shape[1] != 1}
    once = {k: v[:, 0] for k, v in trace.items() if v.shape[1] == 1}
    return xr.Dataset(
        {k: (("lane", "step"), v) for k, v in steps.items()}
        | {k: (("lane",), v) for k, v in once.items()}
    )
