"""What an inference does: frozen settings, and an outcome that is a value."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import PRNGKeyArray

from probkit.model import AbstractModel, Data
from probkit.model.check import Check
from probkit.model.density import Sites


class RESULTS(eqx.Enumeration):
    """How a run ended. Only `successful` is success."""

    successful = "The run finished."
    no_steps = "The run took no step: set the number of steps (or of draws) to one or more."
    max_steps_reached = (
        "The run used all its steps and had not settled. Raise `max_steps`, or look at "
        "the trace (`pk.plots.objective`): it may be settled for your purpose."
    )
    decreased = (
        "The objective fell, which theory forbids: the arithmetic is not precise enough. "
        "Use float64 (`pk.enable_x64()` at the top), or rescale the data."
    )
    stalled = (
        "The search found no better place, although the slope is not zero: the arithmetic "
        "is not precise enough, or the density has a corner. Use float64 "
        "(`pk.enable_x64()` at the top), rescale the data, or start elsewhere."
    )
    nonfinite = (
        "The objective is not finite. Look for extreme values in the data, use float64 "
        "(`pk.enable_x64()`), or start elsewhere (another `key`, or `start=`)."
    )


def message(result: Any) -> str:
    """The words for an item of `RESULTS`."""
    index: Any = RESULTS  # Equinox's metaclass is indexable; type checkers cannot know
    return index[result]


def choose(condition: Any, yes: Any, no: Any) -> Any:
    """`RESULTS.where`, under types that a checker can follow."""
    return RESULTS.where(condition, yes, no)


@dataclass(frozen=True)
class Draws:
    """What a method hands back, as plain arrays on the host.

    Attributes:
        sites: `{site: array[chain, draw, ...]}`, constrained space.
        stats: `{name: array[chain, draw]}`, one number a draw.
        trace: `{name: array[lane, step]}`, how the run went; NaN past a lane's end.
        facts: `{name: number}`, what `checks` needs and the arrays above do not say.
        result: an item of `RESULTS`.
    """

    sites: Sites
    stats: dict[str, np.ndarray]
    trace: dict[str, np.ndarray]
    result: Any
    facts: dict[str, float | int] = field(default_factory=dict)


@dataclass(frozen=True)
class Running:
    """How a run is to be carried out; nothing here changes what it finds.

    Attributes:
        progress: whether to draw a progress bar.
        checkpoint: a folder in which to keep the run, or None.
    """

    progress: bool = False
    checkpoint: Path | None = None


class AbstractMethod(eqx.Module):
    """A way to fit any model: frozen settings, compared by value."""

    @property
    def num_lanes(self) -> int:
        """How many draws of an earlier fit it can start from: chains, restarts, starts."""
        return 1

    def refuse(self, model: Any, data: Any) -> None:
        """Refuse a model or data that this method cannot fit, before anything else is done.

        Raises:
            ValueError: with what it fits instead.
        """
        return None

    @abstractmethod
    def run(
        self,
        model: AbstractModel,
        data: Data,
        key: PRNGKeyArray,
        start: Sites | None,
        running: Running,
    ) -> Draws:
        """Fit. `start` has draws to start from, `{site: array[start, ...]}`, or None."""

    @abstractmethod
    def checks(self, tree: Any, facts: Mapping[str, float | int]) -> tuple[Check, ...]:
        """The checks that this method allows, from the labelled tree of a fit."""
