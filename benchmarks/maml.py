"""Second-order MAML, as a rival: a network whose start is learned, and that is adapted to
each task by a few steps of gradient descent through which the outer gradient goes.

Finn, Abbeel & Levine (2017), "Model-agnostic meta-learning for fast adaptation of deep
networks".
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array

INNER_STEPS, INNER_RATE = 5, 0.05


class Head(eqx.Module):
    """A network of features, and logits of the classes of a task."""

    net: Any
    out: eqx.nn.Linear

    def __call__(self, x: Array) -> Array:
        return self.out(self.net(x))


def loss(model: Any, x: Array, y: Array) -> Array:
    """The mean of minus the log probability of the classes."""
    logits = jax.vmap(model)(x)
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1).mean()


def adapted(model: Any, x: Array, y: Array) -> Any:
    """The network after the inner steps on a support set."""

    def step(model, _):
        slope = eqx.filter_grad(loss)(model, x, y)
        return eqx.apply_updates(model, jax.tree.map(lambda g: -INNER_RATE * g, slope)), 0

    arrays, rest = eqx.partition(model, eqx.is_array)

    def one(arrays, _):
        after, _ = step(eqx.combine(arrays, rest), None)
        return eqx.filter(after, eqx.is_array), None

    arrays, _ = jax.lax.scan(one, arrays, None, length=INNER_STEPS)
    return eqx.combine(arrays, rest)


def rows(task: Array) -> tuple[Array, Array]:
    """Examples `(n, k, *s)` of a task in a row, and their classes."""
    n, k = task.shape[:2]
    return task.reshape(n * k, *task.shape[2:]), jnp.repeat(jnp.arange(n), k)


def outer(model: Any, support: Array, query: Array) -> Array:
    """The mean loss of the queries after the inner steps, over tasks."""

    def one(task):
        own, new = task
        return loss(adapted(model, *rows(own)), *rows(new))

    return jax.lax.map(one, (support, query)).mean()


def trained(model: Any, source: Any, num_steps: int, rate: float) -> Any:
    """The network after Adam on the tasks of a source of `meta.Tasks`."""
    adam = optax.adam(rate)

    @eqx.filter_jit
    def step(model, state, source, number):
        data = source.at(number)
        value, slope = eqx.filter_value_and_grad(outer)(model, data.support, data.query)
        change, state = adam.update(slope, state)
        return eqx.apply_updates(model, change), state, value

    state = adam.init(eqx.filter(model, eqx.is_inexact_array))
    for number in range(num_steps):
        model, state, _ = step(model, state, source, jnp.int32(number))
    return jax.block_until_ready(model)


@eqx.filter_jit
def probabilities(model: Any, support: Array, queries: Array) -> Array:
    """Of the classes of the queries `(t, m, *s)` of each task, `(t, m, n)`."""

    def one(task):
        own, new = task
        return jax.nn.softmax(jax.vmap(adapted(model, *rows(own)))(new))

    return jax.lax.map(one, (support, queries))
