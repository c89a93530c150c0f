"""A method that repeats a step: how a run begins and ends, around the one loop."""

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from probkit.method.approximation import Start
from probkit.method.keys import two_keys
from probkit.method.lanes import Lanes
from probkit.method.loop import State, iterate
from probkit.method.programs import jit_for_one_run, one_of, renew
from probkit.method.protocol import RESULTS, AbstractMethod, Draws
from probkit.model import Data
from probkit.model.density import Program, Sites
from probkit.model.source import AbstractSource, example_of


class Begin(NamedTuple):
    """What the loop runs, and from where.

    Attributes:
        method: the method, with the settings of this run.
        program: the model, or another program in its place, such as a batch of it.
        start: where each lane starts, with a leading lane axis; see `Start`.
        key_run: a JAX random key for the run.
        key_end: a JAX random key for draws after the run.
        source: the data of each step, or None for what the run was given.
    """

    method: "AbstractIterativeMethod"
    program: Program
    start: Start
    key_run: PRNGKeyArray
    key_end: PRNGKeyArray
    source: AbstractSource | None = None


@dataclass(frozen=True)
class End:
    """Where a run of one or more lanes ended, on the host.

    Attributes:
        states: the final states, with a leading lane axis.
        trace: what was kept of each step, `{name: array[lane, step, ...]}`, NaN after the
            end of a lane.
        counts: the number of steps in the trace of each lane, `(lane,)`.
        key: a JAX random key for draws after the run.
    """

    states: State
    trace: dict[str, np.ndarray]
    counts: np.ndarray
    key: PRNGKeyArray

    def lane(self, i: int) -> State:
        """The final state of lane `i`, as JAX arrays."""
        # As they are, because `jnp.asarray` makes a program for each shape.
        return jax.device_put(jax.tree.map(lambda a: a[i], self.states))

    def trace_of_ends(self, name: str, final: np.ndarray, best: int) -> dict[str, Any]:
        """The trace, and how each lane ended.

        Args:
            name: `objective` or `loss`.
            final: its last value in each lane, `(lane,)`, in nats.
            best: the lane that became the fit.

        Returns:
            The trace with `final_<name>`, `steps` and `best`, `(lane, 1)` each.
        """
        return self.trace | {
            f"final_{name}": final[:, None],
            "steps": self.counts[:, None],
            "best": np.arange(len(final))[:, None] == best,
        }


class AbstractIterativeMethod(AbstractMethod):
    """A method that repeats a step. Its runs begin and end here, in `run`.

    A run has one or more *lanes*: chains, restarts, starts. `init`, `step`, `terminate`
    and `record` are written for one lane.

    Attributes:
        unread: fields that these four do not read. The loop gets the method without them,
            so that a run with another limit of steps compiles nothing new, and resumes
            the checkpoint of a shorter run.
    """

    unread: ClassVar[tuple[str, ...]] = ("max_steps", "num_draws")

    @abstractmethod
    def lanes(self) -> Lanes:
        """The number of lanes, and how they are spread over the devices."""

    @property
    @abstractmethod
    def label(self) -> str:
        """The text before the progress bar."""

    @property
    @abstractmethod
    def step_limit(self) -> int:
        """The largest number of steps of a lane."""

    @property
    def discarded(self) -> int:
        """The number of first steps that are not kept in the trace: the warm-up."""
        return 0

    @property
    def num_lanes(self) -> int:
        """The number of lanes."""
        return self.lanes().count

    def begin(self, model: Any, data: Data, key: PRNGKeyArray, start: Start) -> Begin:
        """Check the arguments, and choose what to run.

        Args:
            model: the model.
            data: its data, or a source if the method takes data by step (`by_step`).
            key: a JAX random key.
            start: where each lane starts, with a leading lane axis; see `Start`.

        Returns:
            What the loop runs. By default this method and model.

        Raises:
            ValueError: if method, model, data and start do not fit together.
        """
        return Begin(self, model, start, *two_keys(key))

    @abstractmethod
    def init(self, model: Any, data: Data, key: PRNGKeyArray, start: Start) -> State:
        """The state of a lane before the first step.

        Args:
            model: the model.
            data: its data.
            key: a JAX random key of this lane.
            start: the draw to start from; or the approximation, if `starts_at` takes it;
                or None for a start of the method's own.

        Returns:
            A tree of arrays.
        """

    @abstractmethod
    def step(self, model: Any, data: Data, state: State) -> State:
        """The state after one step more.

        Args:
            model: the model.
            data: its data, or those of this step.
            state: the state before the step.

        Returns:
            A state of equal shapes and dtypes.
        """

    @abstractmethod
    def terminate(self, state: State) -> Bool[Array, ""]:
        """Whether the lane stops here, because it has settled or because it failed.

        Args:
            state: the state after a step.
        """

    @abstractmethod
    def record(self, state: State) -> Any:
        """One entry of the trace.

        Args:
            state: the state after a step.

        Returns:
            `{name: array}`.
        """

    def runs_once(self, model: Any, data: Data) -> bool:
        """Whether steps are compiled as by `jit_for_one_run`. By default they are not.

        Args:
            model: the model, or the program of the run.
            data: the data.
        """
        return False

    def steps_alone(self, model: Any, data: Data) -> bool:
        """Whether each step is a program of its own, because it has convolutions that a
        loop would slow down. By default it is not.

        Args:
            model: the model, or another program.
            data: the data, or those of the first step.
        """
        return False

    def bare(self) -> "AbstractIterativeMethod":
        """The method without the fields that its steps do not read."""
        bare = copy.copy(self)
        for name in self.unread:
            if hasattr(bare, name):
                object.__setattr__(bare, name, None)
        return bare

    def first_step(self, model, data, key, start) -> State:
        """The state after the first step: the code of a method as one function to trace."""
        return self.step(model, data, self.init(model, data, key, start))

    @abstractmethod
    def finish(self, model: Any, data: Data, end: End) -> Draws:
        """Make draws of the final states.

        Args:
            model: the model.
            data: what `begin` got.
            end: how the lanes ended.

        Returns:
            The draws, with trace, facts and result.
        """

    def run(self, model, data, key, start, running):
        begun = self.begin(model, data, key, start)
        method, source = begun.method, data if begun.source is None else begun.source
        example, one = example_of(source), one_of(begun.start)
        renew("steps", method, method.first_step, begun.program, example, key, one)
        states, trace, counts = iterate(
            method.bare(),
            begun.program,
            source,
            begun.key_run,
            begun.start,
            lanes=method.lanes(),
            max_steps=method.step_limit,
            discard=method.discarded,
            running=running,
            label=method.label,
        )
        if counts.size == 0:
            none = RESULTS.no_steps if method.step_limit == 0 else RESULTS.nonfinite
            return Draws({}, {}, {}, none)
        return method.finish(model, data, End(states, trace, counts, begun.key_end))

    def outcome(self, state: State, result: Any) -> tuple[Any, bool]:
        """How a lane ended, and whether it has settled.

        Args:
            state: its final state.
            result: its own item of `RESULTS`.

        Returns:
            `result`, or `RESULTS.max_steps_reached` if the lane was not done; and whether
            it was done.
        """
        settled = bool(_terminates(self.bare(), state))
        return (result if settled else RESULTS.max_steps_reached), settled


@jit_for_one_run
def _terminates(method: AbstractIterativeMethod, state: State) -> Bool[Array, ""]:
    return method.terminate(state)


def best_lane(objective: np.ndarray, degenerate: np.ndarray | None = None) -> int:
    """The lane with the highest objective. Degenerate lanes rank behind all others.

    Args:
        objective: of each lane, `(lane,)`. NaN counts as minus infinity.
        degenerate: whether the optimum of a lane is spurious, `(lane,)`.

    Returns:
        The number of the lane, from 0.
    """
    finite = np.where(np.isnan(objective), -np.inf, objective)
    behind = np.zeros(len(finite), bool) if degenerate is None else degenerate
    return int(np.lexsort((-finite, behind))[0])


def repeated(sites: Sites, num_draws: int) -> Sites:
    """One draw as `num_draws` equal draws of one chain.

    Args:
        sites: one draw, `{site: array}`.
        num_draws: the number of copies.

    Returns:
        `{site: array[1, num_draws, ...]}`.
    """
    shape = (1, num_draws)
    return jax.tree.map(lambda a: np.broadcast_to(a, (*shape, *np.shape(a))), sites)
