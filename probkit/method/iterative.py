"""A method that repeats a step: how a run begins and ends, around the one loop."""

import copy
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, PRNGKeyArray

from probkit.method.lanes import Lanes
from probkit.method.loop import State, iterate
from probkit.method.programs import renew
from probkit.method.protocol import RESULTS, AbstractMethod, Draws
from probkit.model import Data
from probkit.model.density import Program, Sites


class Begin(NamedTuple):
    """What the loop carries, and from where.

    Attributes:
        method: the method, with the settings of this run.
        program: the model, or another program in its place.
        start: where each lane starts, `{site: array[lane, ...]}`, or None.
        key_run: a random key for the run.
        key_end: a random key for what is drawn at its end.
    """

    method: "AbstractIterativeMethod"
    program: Program
    start: Sites | None
    key_run: PRNGKeyArray
    key_end: PRNGKeyArray


@dataclass(frozen=True)
class End:
    """Where a run of one or more lanes ended, on the host.

    Attributes:
        states: the final states, with a leading lane axis.
        trace: what was recorded, `{name: array[lane, step, ...]}`, NaN past a lane's end.
        counts: how many steps each lane recorded, `(lane,)`.
        key: a random key for what is drawn at the end.
    """

    states: State
    trace: dict[str, np.ndarray]
    counts: np.ndarray
    key: PRNGKeyArray

    def lane(self, i: int) -> State:
        """The final state of one lane, as JAX arrays."""
        return jax.tree.map(lambda a: jnp.asarray(a[i]), self.states)

    def trace_of_ends(self, name: str, final: np.ndarray, best: int) -> dict[str, Any]:
        """The trace, and how each lane ended.

        Args:
            name: of what was recorded, `objective` or `loss`.
            final: its last value in each lane, `(lane,)`.
            best: the lane that became the fit.
        """
        return self.trace | {
            f"final_{name}": final[:, None],
            "steps": self.counts[:, None],
            "best": np.arange(len(final))[:, None] == best,
        }


class AbstractIterativeMethod(AbstractMethod):
    """A method that repeats a step; `run` writes the repetition once, for all of them.

    A run has one or more *lanes*: chains, restarts, starts. `init`, `step`, `terminate`
    and `record` are written for one lane.

    Attributes:
        unread: fields that these four do not read. The loop gets the method without them,
            so that a run with another limit of steps compiles nothing new, and goes on
            from the checkpoint of a shorter one.
    """

    unread: ClassVar[tuple[str, ...]] = ("max_steps", "num_draws")

    @abstractmethod
    def lanes(self) -> Lanes:
        """How many lanes there are, and how they lie on the machine."""

    @property
    @abstractmethod
    def label(self) -> str:
        """What the progress bar is called."""

    @property
    @abstractmethod
    def step_limit(self) -> int:
        """The most steps of a lane."""

    @property
    def discarded(self) -> int:
        """How many steps, from the first, are not recorded: the warm-up."""
        return 0

    @property
    def num_lanes(self) -> int:
        return self.lanes().count

    def begin(
        self, model: Any, data: Data, key: PRNGKeyArray, start: Sites | None
    ) -> Begin:
        """Refuse what does not fit together; say what to run, and from where."""
        return Begin(self, model, start, *jax.random.split(key))

    @abstractmethod
    def init(self, model: Any, data: Data, key: PRNGKeyArray, start: Sites | None) -> State:
        """The state before the first step. `start` is one draw, or None."""

    @abstractmethod
    def step(self, model: Any, data: Data, state: State) -> State:
        """One step."""

    @abstractmethod
    def terminate(self, state: State) -> Bool[Array, ""]:
        """Whether the lane is done, for better or worse."""

    @abstractmethod
    def record(self, state: State) -> Any:
        """What to keep of a step: a dict of arrays."""

    def bare(self) -> "AbstractIterativeMethod":
        """The method without the fields that its steps do not read."""
        bare = copy.copy(self)
        for name in self.unread:
            if hasattr(bare, name):
                object.__setattr__(bare, name, None)
        return bare

    def first_step(self, model, data, key, start) -> State:
        """Begin and step once: the code of a method as one function to trace."""
        return self.step(model, data, self.init(model, data, key, start))

    @abstractmethod
    def finish(self, model: Any, data: Data, end: End) -> Draws:
        """What the run found."""

    def run(self, model, data, key, start, running):
        begun = self.begin(model, data, key, start)
        method = begun.method
        first = jax.tree.map(lambda a: a[0], begun.start)
        renew("steps", method, method.first_step, begun.program, data, key, first)
        states, trace, counts = iterate(
            method.bare(),
            begun.program,
            data,
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
        """How a lane ended, given its own result, and whether it had settled."""
        settled = bool(self.terminate(state))
        return (result if settled else RESULTS.max_steps_reached), settled


def best_lane(objective: np.ndarray, degenerate: np.ndarray | None = None) -> int:
    """The lane of the highest objective; degenerate ones and NaN rank behind all others.

    Args:
        objective: of each lane, `(lane,)`.
        degenerate: whether the optimum of a lane is spurious, `(lane,)`.
    """
    finite = np.where(np.isnan(objective), -np.inf, objective)
    behind = np.zeros(len(finite), bool) if degenerate is None else degenerate
    return int(np.lexsort((-finite, behind))[0])


def repeated(sites: Sites, num_draws: int) -> Sites:
    """One draw as `num_draws` equal draws of one chain."""
    shape = (1, num_draws)
    return jax.tree.map(lambda a: np.broadcast_to(a, (*shape, *np.shape(a))), sites)
