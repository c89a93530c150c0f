"""A fit as a value: model, data, the labelled tree of draws, and how the run ended."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from probkit.method import AbstractApproximation, AbstractMethod
from probkit.model import AbstractData, AbstractModel, Data
from probkit.model.density import Sites, latent_names

SAMPLE = ("chain", "draw")


class FitError(RuntimeError):
    """A run that did not succeed.

    Attributes:
        fit: the unfinished fit, or None if there are no draws.
    """

    def __init__(self, message: str, fit: "Fit | None"):
        super().__init__(message)
        self.fit = fit


@dataclass(frozen=True)
class Fit:
    """A fitted model.

    Attributes:
        model: the model.
        data: its data.
        method: the method, or None if a file could not restore it.
        tree: an ArviZ `DataTree`: `posterior`, `sample_stats`, `trace`, `observed_data`,
            `constant_data`, and on request `log_likelihood`.
        result: how the run ended, the name of an item of `RESULTS`.
        facts: numbers that the method measured in its own run.
        record: versions of the libraries with which the fit was made.
        approximation: the posterior as a value, from which `predict` can draw again; None
            if the method has draws only, or if a file could not restore it.
        kept: what `model.integrated` makes of draws, by the numbers of the draws in
            their chains. It is kept between calls, and not in files.
    """

    model: AbstractModel
    data: Data
    method: AbstractMethod | None
    tree: Any
    result: str
    facts: Mapping[str, float | int]
    record: Mapping[str, Any]
    approximation: AbstractApproximation | None = None
    kept: dict[Any, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def posterior(self):
        """The posterior draws, an xarray `Dataset` over chain, draw and named axes.

        Values are in constrained space, in the units that the family documents.
        """
        return self.tree["posterior"].to_dataset()

    def sites(self, chain: int = 0, draw: int = 0) -> Sites:
        """One draw of the latent sites, for the functions of the model.

        Args:
            chain: the number of the chain, from 0.
            draw: the number of the draw in the chain, from 0.

        Returns:
            `{site: array}`, in constrained space.
        """
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


def draws_of(fitted: Fit) -> Sites:
    """The latent sites of every draw, `{site: array[chain, draw, ...]}`."""
    names = latent_names(fitted.model, fitted.data)
    return {name: jnp.asarray(fitted.posterior[name].values) for name in names}


def typical(fitted: Fit) -> int:
    """The number of the draw with the highest density, or 0 if no density is known.

    Draws are counted chain after chain.
    """
    stats = fitted.tree.get("sample_stats")
    return int(np.argmax(stats["lp"].values)) if stats is not None and "lp" in stats else 0


# What the public functions take, and an example for messages.
_KINDS: dict[str, tuple[Any, str]] = {
    "model": (
        AbstractModel,
        "a probkit model, such as `moe.MixtureOfExperts(2)`",
    ),
    "data": (AbstractData, "the data of a family, such as `moe.Pairs(x, y)`"),
    "method": (AbstractMethod, "`pk.EM()`, `pk.MAP()`, `pk.SVI()` or `pk.NUTS()`"),
    "start": (
        Fit | AbstractApproximation | None,
        "an earlier `Fit`, what `pk.fit` returns",
    ),
    "fit": (Fit, "what `pk.fit` returns"),
    "checkpoint": (str | Path | None, "the path of a folder"),
    "path": (str | Path, 'the path of a file, such as `"fit.nc"`'),
}


def refuse_wrong_types(*given: tuple[str, Any]) -> None:
    """Refuse arguments of a wrong type, in one line.

    Args:
        given: pairs of an argument as messages name it, such as `fit(start=...)`, and its
            value. The second word is a key of `_KINDS`, which has the right type.

    Raises:
        ValueError: for the first argument with a wrong type.
    """
    for what, value in given:
        argument = re.findall(r"\w+", what)[1]
        kind, example = _KINDS[argument]
        if not isinstance(value, kind):
            raise ValueError(f"`{what}` got {_named(value)}; it takes {example}.")


def refuse_no_fit(fitted: Any, what: str) -> None:
    """Refuse an argument that is not a fit, in one line.

    Args:
        fitted: the argument.
        what: its name in messages, such as `predict(fit, ...)`.

    Raises:
        ValueError: if it is not a `Fit`.
    """
    refuse_wrong_types((what, fitted))


def _named(value: Any) -> str:
    if isinstance(value, type):
        return f"the class `{value.__name__}`, without its `(...)`"
    return f"a value of type `{type(value).__name__}`"
