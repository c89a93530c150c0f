"""What an inference defines: frozen settings, a run, and an outcome that is a value."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.method.approximation import AbstractApproximation, Start
from probkit.model import AbstractModel, Data
from probkit.model.check import Check
from probkit.model.density import Sites


class RESULTS(eqx.Enumeration):
    """How a run ended. Only `successful` is success."""

    successful = "The run finished."
    no_steps = "The run took no step: set the number of steps (or of draws) to one or more."
    max_steps_reached = (
        "The run used all its steps and had not settled. Raise `max_steps`, or look at "
        "the trace (`pk.plots.objective`): it may be close enough for your purpose."
    )
    decreased = (
        "The objective fell, although in exact arithmetic it can only rise. "
        "Use float64 (`pk.enable_x64()` at the top), or rescale the data."
    )
    stalled = (
        "The search found no higher density, although the slope is not zero: the "
        "arithmetic is not precise enough, or the density has a kink. Use float64 "
        "(`pk.enable_x64()` at the top), rescale the data, or start elsewhere."
    )
    unexplained = (
        "The model explains next to nothing of the observations: the best that was found "
        "is that all is noise. Start elsewhere (`start=`, narrower ranges of unknowns), "
        "or look at the equation and the observations."
    )
    unsolved = (
        "What was found is no solution: it misses the equation between the points of the "
        "grid, or the conditions on faces, by far. `pk.diagnose` of the fit in the error "
        "(`error.fit`, or `throw=False`) says which, and what to do."
    )
    nonfinite = (
        "The objective is not finite. Look for extreme values in the data, use float64 "
        "(`pk.enable_x64()`), or start elsewhere (another `key`, or `start=`)."
    )
    imprecise = (
        "The signal is so far above the noise that rounding leaves no digits to fit it by. "
        "Use float64 (`pk.enable_x64()` at the top). If you do, give a larger noise, or "
        "None to have it learned."
    )


def message(result: Any) -> str:
    """The message of an item of `RESULTS`."""
    index: Any = RESULTS  # Equinox's metaclass is indexable; type checkers cannot know
    return index[result]


def choose(condition: Any, yes: Any, no: Any) -> Any:
    """`RESULTS.where`, with types that a type checker understands.

    Args:
        condition: a truth value, possibly traced.
        yes: an item of `RESULTS`.
        no: another item.

    Returns:
        `yes` if the condition is true, else `no`.
    """
    return RESULTS.where(condition, yes, no)


def either(condition: Any, yes: Any, no: Any) -> Any:
    """`jnp.where` on every array of two trees."""
    return jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)


@dataclass(frozen=True)
class Draws:
    """What a method returns, as NumPy arrays.

    Attributes:
        sites: `{site: array[chain, draw, ...]}`, in constrained space. Empty if the run
            gave no draws.
        stats: `{name: array[chain, draw]}`, one number per draw. The log density, if the
            method knows it, is `lp`, in nats.
        trace: `{name: array[lane, step]}`, what was kept of each step; NaN after the end
            of a lane.
        result: an item of `RESULTS`.
        facts: `{name: number}`, what `checks` needs besides these arrays.
        model: the model with the settings that the run chose, or None if it chose none.
        data: the data as the run arranged them, or None if it left them as they were.
        integrated: what `model.integrated` makes of the draws, one after another, if
            the run has computed it.
        approximation: the posterior as a value, or None if the run has draws only. Its
            arrays are JAX arrays.
    """

    sites: Sites
    stats: dict[str, np.ndarray]
    trace: dict[str, np.ndarray]
    result: Any
    facts: dict[str, float | int] = field(default_factory=dict)
    model: AbstractModel | None = None
    data: Data | None = None
    integrated: Any = None
    approximation: AbstractApproximation | None = None


@dataclass(frozen=True)
class Running:
    """How to carry out a run. This does not change its results.

    Attributes:
        progress: whether to show a progress bar.
        checkpoint: a folder in which to keep the run, or None.
    """

    progress: bool = False
    checkpoint: Path | None = None


class AbstractMethod(eqx.Module):
    """A way to fit a model: frozen settings, compared by value.

    Attributes:
        by_step: whether `run` takes a source, which has other data for each step.
    """

    by_step: ClassVar[bool] = False

    @property
    def num_lanes(self) -> int:
        """The number of draws of an earlier fit that it starts from, one per lane."""
        return 1

    def refuse(self, model: Any, data: Any) -> None:
        """Refuse a model or data that this method cannot fit, before anything else is done.

        Args:
            model: the model that `fit` was given.
            data: its data.

        Raises:
            ValueError: with what it fits instead.
        """
        return None

    def starts_at(
        self, approximation: AbstractApproximation, model: AbstractModel, data: Data
    ) -> bool:
        """Whether a run can start at the approximation of an earlier fit. By default not.

        If so, `start` is that approximation, with a leading lane axis, and no draw.

        Args:
            approximation: that of the earlier fit, whose sites have the shapes of this
                model's.
            model: the model.
            data: its data.
        """
        return False

    def moved(
        self,
        approximation: AbstractApproximation,
        model: AbstractModel,
        earlier: Data,
        data: Data,
    ) -> AbstractApproximation | None:
        """The approximation of an earlier fit at other data, as a start for a run there.

        It then counts in place of the one that was found, also if sites of the program
        have other shapes for these data.

        Args:
            approximation: that of the earlier fit.
            model: the model.
            earlier: the data of the earlier fit.
            data: the data of the run.

        Returns:
            The approximation, or None (by default) if it stays what it is.

        Raises:
            ValueError: if the data are not of the same kind.
        """
        return None

    def prior_of(
        self,
        approximation: AbstractApproximation | None,
        model: AbstractModel,
        earlier: Data,
        data: Data,
    ) -> tuple[Data, AbstractApproximation]:
        """The approximation of an earlier fit as the prior of new data.

        By default a method cannot do that.

        Args:
            approximation: that of the earlier fit, or None if it has draws only.
            model: the model.
            earlier: the data of the earlier fit.
            data: the new data.

        Returns:
            The data of the run, and the start that makes `run` take it for a prior.

        Raises:
            ValueError: if the method cannot do this, or data do not fit the fit.
        """
        name, kind = type(self).__name__, type(model).__name__
        raise ValueError(
            f"`update`: `{name}` cannot take the posterior of this fit of `{kind}` as the "
            "prior of more data; fit all data together, `pk.fit(..., start=fit)`."
        )

    @abstractmethod
    def run(
        self,
        model: AbstractModel,
        data: Data,
        key: PRNGKeyArray,
        start: Start,
        running: Running,
    ) -> Draws:
        """Fit a model to data.

        Args:
            model: the model.
            data: its data, or a source (`by_step`).
            key: a JAX random key.
            start: draws to start from, `{site: array[lane, ...]}`; or an approximation,
                if `starts_at` takes it; or None.
            running: progress bar and checkpoint.

        Returns:
            The draws. A run that fails returns its result; it does not raise.

        Raises:
            ValueError: if method, model, data and start do not fit together.
        """

    @abstractmethod
    def checks(self, tree: Any, facts: Mapping[str, float | int]) -> tuple[Check, ...]:
        """The checks of a fit by this method.

        Args:
            tree: the labelled tree of the fit.
            facts: the facts of its run.

        Returns:
            The checks, in the order of the report.
        """

    def checks_of_model(
        self, model: AbstractModel, given: Any, data: Data, facts: Mapping[str, Any]
    ) -> tuple[Check, ...]:
        """The checks of the model, by default on the data of the fit.

        Args:
            model: the model.
            given: what `model.checks` takes.
            data: the data of the fit; of a source, those of one step.
            facts: the facts of the run, such as for how many data these stand.

        Returns:
            The checks.
        """
        return model.checks(given, data)
