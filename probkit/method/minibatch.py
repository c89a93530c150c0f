"""Batches: rows drawn at random, and a program in which they count for all rows."""

from typing import Any

import equinox as eqx
import jax
import numpyro
from jaxtyping import Array, Int, PRNGKeyArray

from probkit.model import Data
from probkit.model.density import latent_names, observed_names, sites_by_row


def draw_rows(key: PRNGKeyArray, count: int, size: int) -> Int[Array, " b"]:
    """`size` of `count` rows, drawn with replacement.

    A draw without replacement would sort all rows, at a cost that grows with the data.
    With replacement the variance of a sum over the batch is larger by the factor
    `(count - 1) / (count - size)`. There is no bias.

    Args:
        key: a JAX random key.
        count: the number of rows.
        size: the number of rows in the batch.

    Returns:
        Row numbers from 0 to `count - 1`.
    """
    return jax.random.randint(key, (size,), 0, count)


class Minibatch(eqx.Module):
    """A program on a batch in which the observations count for all rows.

    Attributes:
        program: the program.
        sites: names of the observed sites with one row per observation.
        factor: the number of rows for which each row of the batch counts.
    """

    program: Any
    sites: frozenset[str] = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __call__(self, batch: Data) -> None:
        with _Counted(self.sites, self.factor):
            self.program(batch)


class _Counted(numpyro.primitives.Messenger):
    """As `numpyro.handlers.scale`, but for some sites only."""

    def __init__(self, sites: frozenset[str], factor: float):
        self.sites, self.factor = sites, factor
        super().__init__()

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["name"] in self.sites:
            scale = msg.get("scale")
            msg["scale"] = self.factor if scale is None else self.factor * scale


def minibatch(program: Any, data: Data, size: int, what: str) -> Minibatch:
    """The program for batches of `size` rows.

    Args:
        program: a model.
        data: all data.
        size: the number of rows in a batch.
        what: the setting in messages, such as `SVI(batch_size=100)`.

    Returns:
        A program that takes a batch, `data.take(rows)`.

    Raises:
        ValueError: if there are fewer rows, or if a batch cannot count for all rows: a
            latent site has one value per observation, or an observed site has not.
    """
    if size > len(data):
        raise ValueError(
            f"`{what}` exceeds the {len(data)} observations; leave `batch_size=None` to "
            "use them all."
        )
    by_row = sites_by_row(program, data)
    local = [name for name in latent_names(program, data) if name in by_row]
    if local:
        raise ValueError(
            f"`{what}`: `{local[0]}` has one value per observation, and a batch has "
            "only some of them; leave `batch_size=None`, or integrate it out."
        )
    observed = observed_names(program, data)
    whole = [name for name in observed if name not in by_row]
    if whole or not observed:
        raise ValueError(
            f"`{what}`: the observed site `{whole[0] if whole else '?'}` does not have one "
            "row per observation, so that a batch cannot count for all; leave "
            "`batch_size=None`, or observe row by row in a `numpyro.plate`."
        )
    return Minibatch(program, frozenset(observed), len(data) / size)
