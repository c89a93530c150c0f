"""The no-U-turn sampler: NumPyro's transitions in our compiled loop."""

from functools import partial
from typing import Any, Literal, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Int
from numpyro.infer.util import ParamInfo, potential_energy

from probkit.method import RESULTS, AbstractIterativeMethod, Begin, Draws, Lanes
from probkit.method.mixing import check_agreement, check_effective
from probkit.model.check import Check
from probkit.model.density import (
    constrain,
    latent_names,
    off_the_edge,
    random_position,
    unconstrain,
)
from probkit.validate import positive, short, whole

ChainMethod = Literal["auto", "parallel", "sequential", "vectorized"]


def _blocks(value: Any) -> bool | tuple[tuple[str, ...], ...]:
    if isinstance(value, bool):
        return value
    if isinstance(value, list | tuple) and all(isinstance(b, list | tuple) for b in value):
        return tuple(tuple(block) for block in value)
    raise ValueError(
        f"`NUTS(dense_mass={short(value)})` takes True, False, or blocks of site names, "
        'such as `[("gate", "coefficient")]`.'
    )


def _names(value: Any) -> tuple[str, ...]:
    # A text alone is one name, not a sequence of letters.
    return (value,) if isinstance(value, str) else tuple(value)


class NUTSState(NamedTuple):
    """NumPyro's state of a chain, and the number of steps taken."""

    kernel: Any  # NumPyro's HMCState
    num_steps: Int[Array, ""]


class NUTS(AbstractIterativeMethod):
    """Hamiltonian Monte Carlo with the no-U-turn rule and NumPyro's warm-up.

    Attributes:
        num_chains: the number of chains.
        num_warmup: the number of adaptation steps per chain. They are not kept.
        num_samples: the number of draws per chain.
        target_accept: the acceptance probability to which the step size is adapted, in
            (0, 1). Raise it (0.95, 0.99) if there are divergences.
        dense_mass: False for a diagonal mass matrix, True for a full one, or a tuple with
            one tuple of site names per block.
        max_tree_depth: a trajectory takes at most `2**max_tree_depth - 1` steps.
        chain_method: "parallel" splits the chains over the available devices,
            "vectorized" moves all chains together on one device, "sequential" runs one
            after the other. "auto" is vectorized on an accelerator and parallel on a CPU.
            Draws repeat bit for bit only with the same method and number of devices.
        extra_fields: more fields of NumPyro's `HMCState` to keep for each draw, such as
            `"accept_prob"` or `"adapt_state.step_size"`. They go to `sample_stats`.
        jitter: chains started from a fit get normal noise of this sd, in unconstrained
            coordinates, so that they differ.

    Source: Hoffman & Gelman (2014), "The No-U-Turn Sampler"; the transitions and the
    warm-up are NumPyro's.
    """

    num_chains: int = eqx.field(default=4, converter=whole("NUTS(num_chains", 1))
    num_warmup: int = eqx.field(default=1000, converter=whole("NUTS(num_warmup", 0))
    num_samples: int = eqx.field(default=1000, converter=whole("NUTS(num_samples", 1))
    target_accept: float = eqx.field(default=0.8, converter=positive("NUTS(target_accept"))
    dense_mass: bool | tuple[tuple[str, ...], ...] = eqx.field(
        default=False, converter=_blocks
    )
    max_tree_depth: int = eqx.field(default=10, converter=whole("NUTS(max_tree_depth", 1))
    chain_method: ChainMethod = "auto"
    extra_fields: tuple[str, ...] = eqx.field(default=(), converter=_names)
    jitter: float = eqx.field(default=0.1, converter=positive("NUTS(jitter", zero=True))

    def __check_init__(self):
        if not self.target_accept < 1:
            raise ValueError(
                f"`NUTS(target_accept={self.target_accept})` is a probability; it must "
                "lie between 0 and 1, 0.8 for most models."
            )
        methods = get_args(ChainMethod)
        if self.chain_method not in methods:
            raise ValueError(
                f"`NUTS(chain_method={self.chain_method!r})` is not one of "
                f"{', '.join(methods)}."
            )

    # The three functions, for one chain.

    def init(self, model, data, key, start):
        key_place, key_kernel = jax.random.split(key)
        if start is None:
            position = random_position(model, data, key_place)
        else:
            centre = off_the_edge(unconstrain(model, data, start))
            position = _jittered(centre, key_place, self.jitter)
        kernel = self._kernel(model, data, position)
        state = kernel.init(key_kernel, self.num_warmup, position)
        return NUTSState(state, jnp.zeros((), jnp.int32))

    def step(self, model, data, state):
        now = state.kernel
        kernel = self._kernel(model, data, now.z)
        # NumPyro's object can step only after `init`. Traced, `init` takes no run time, and
        # where the energy and its slope are known it does not trace the program either.
        known = ParamInfo(now.z, now.potential_energy, now.z_grad)
        jax.eval_shape(
            lambda key: kernel.init(key, self.num_warmup, known), jax.random.key(0)
        )
        return NUTSState(kernel.sample(now, (), {}), state.num_steps + 1)

    def terminate(self, state) -> Bool[Array, ""]:
        finished = state.num_steps >= self.num_warmup + self.num_samples
        return finished | ~jnp.isfinite(state.kernel.potential_energy)

    def record(self, state):
        kernel = state.kernel
        stats = {
            "diverging": kernel.diverging,
            "energy": kernel.energy,
            "lp": -kernel.potential_energy,
            "n_steps": kernel.num_steps,
            "acceptance_rate": kernel.accept_prob,
            "step_size": kernel.adapt_state.step_size,
        }
        stats |= {name: _field(kernel, name) for name in self.extra_fields}
        return {f"z.{k}": v for k, v in kernel.z.items()} | {
            f"stat.{k}": v for k, v in stats.items()
        }

    # The run as a whole.

    @property
    def label(self):
        return f"NUTS, {self.num_chains} chains"

    @property
    def step_limit(self):
        return self.num_warmup + self.num_samples

    @property
    def discarded(self):
        return self.num_warmup

    def begin(self, model, data, key, start):
        self._refuse_unknown_blocks(model, data)
        return Begin(self, model, start, key_run=key, key_end=key)

    def finish(self, model, data, end):
        if end.counts.min() < self.num_samples:
            return Draws({}, {}, {}, RESULTS.nonfinite)
        position = _with_prefix(end.trace, "z.")
        stats = _with_prefix(end.trace, "stat.")
        depth = np.floor(np.log2(np.maximum(stats["n_steps"], 1))).astype(int) + 1
        stats["tree_depth"] = depth
        stats["reached_max_treedepth"] = depth >= self.max_tree_depth
        sites = jax.device_get(_constrain_all(model, data, position))
        return Draws(sites, stats, {}, RESULTS.successful)

    def checks(self, tree, facts):
        import arviz_stats as azs

        stats = tree["sample_stats"].to_dataset()
        chains, draws = stats.sizes["chain"], stats.sizes["draw"]
        more = "run longer (`num_warmup`, `num_samples`)"
        elsewhere = "start them from an EM or MAP fit (`start=`)"
        divergences = int(stats["diverging"].sum())
        deep = float(stats["reached_max_treedepth"].mean())
        return (
            *check_agreement(tree, more, elsewhere),
            Check(
                "divergences",
                divergences,
                "at most",
                0,
                "raise `target_accept` to 0.95 or 0.99; if they stay, the posterior has "
                "a funnel or a ridge: use narrower priors, or reparametrise",
                f"of {chains * draws:,} draws",
            ),
            Check(
                "E-BFMI, lowest chain",
                float(np.min(azs.bfmi(tree)["energy"].values)),
                "at least",
                0.3,
                "heavy tails: reparametrise, or use narrower priors",
            ),
            Check(
                "at the tree-depth limit",
                deep,
                "at most",
                0.05,
                "raise `max_tree_depth`, or use `dense_mass=True`",
                "share of draws",
            ),
            *check_effective(tree, more),
        )

    def _refuse_unknown_blocks(self, model, data) -> None:
        blocks = () if isinstance(self.dense_mass, bool) else self.dense_mass
        names = latent_names(model, data)
        unknown = [name for block in blocks for name in block if name not in names]
        if unknown:
            raise ValueError(
                f"`NUTS(dense_mass=...)`: the model has no site `{unknown[0]}`; it has "
                f"{', '.join(names)}."
            )

    def _kernel(self, model, data, position):
        mass = self.dense_mass
        if isinstance(mass, bool):
            mass = (tuple(sorted(position)),) if mass else ()
        # Given the program itself, NumPyro would also trace its own search for a start,
        # which is not used, at each `init`.
        return numpyro.infer.NUTS(
            potential_fn=partial(potential_energy, model, (data,), {}),
            dense_mass=list(mass),
            target_accept_prob=self.target_accept,
            max_tree_depth=self.max_tree_depth,
        )

    @property
    def num_lanes(self):
        return self.num_chains

    def lanes(self) -> Lanes:
        here = jax.local_device_count()
        method = self.chain_method
        if method == "auto":
            method = "parallel" if jax.default_backend() == "cpu" else "vectorized"
        if method == "parallel" and self.chain_method == "parallel" and here == 1:
            raise ValueError(
                '`NUTS(chain_method="parallel")` found one device. Call '
                f"`numpyro.set_host_device_count({self.num_chains})` before anything "
                'else that uses JAX, or leave `chain_method="auto"`.'
            )
        if method == "parallel":
            devices = max(n for n in range(1, here + 1) if self.num_chains % n == 0)
            return Lanes(self.num_chains, devices, together=False)
        return Lanes(self.num_chains, 1, together=method == "vectorized")


@eqx.filter_jit
def _constrain_all(model, data, position):
    one = lambda z: constrain(model, data, z)  # noqa: E731
    return jax.vmap(jax.vmap(one))(position)


def _jittered(position, key, scale):
    flat, unravel = ravel_pytree(position)
    return unravel(flat + scale * jax.random.normal(key, flat.shape, flat.dtype))


def _field(kernel_state, name):
    for part in name.split("."):
        if not hasattr(kernel_state, part):
            raise ValueError(
                f"`NUTS(extra_fields=...)`: HMCState has no `{name}`; it has "
                f"{', '.join(kernel_state._fields)}."
            )
        kernel_state = getattr(kernel_state, part)
    return kernel_state


def _with_prefix(records, prefix):
    return {k[len(prefix) :]: v for k, v in records.items() if k.startswith(prefix)}
