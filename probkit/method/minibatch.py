"""Minibatches: rows drawn at random, and a program that counts them for all rows."""

from typing import Any

import equinox as eqx
import jax
import numpyro
from jaxtyping import Array, Int, PRNGKeyArray

from probkit.model import Data
from probkit.model.density import latent_names, observed_names, sites_by_row


def draw_rows(key: PRNGKeyArray, count: int, size: int) -> Int[Array, " b"]:
    """`size` of `count` rows, with replacement.

    Rows without replacement would take a sort of all rows, a cost that grows with the
    data. A row that comes twice costs a little precision, `(count - 1) / (count - size)`
    in variance, and no bias.
    """
    return jax.random.randint(key, (size,), 0, count)


class Minibatch(eqx.Module):
    """A program on a batch in which the observations count for all rows.

    Attributes:
        program: the program.
        sites: names of the observed sites with a row for each observation.
        factor: how many rows each row of the batch counts for.
    """

    program: Any
    sites: frozenset[str] = eqx.field(static=True)
    factor: float = eqx.field(static=True)

    def __call__(self, batch: Data) -> None:
        with _Counted(self.sites, self.factor):
            self.program(batch)


class _Counted(numpyro.primitives.Messenger):
    """`numpyro.handlers.scale`, for some of the sites."""

    def __init__(self, sites: frozenset[str], factor: float):
        self.sites, self.factor = sites, factor
        super().__init__()

    def process_message(self, msg):
        if msg["type"] == "sample" and msg["name"] in self.sites:
            scale = msg.get("scale")
            msg["scale"] = self.factor if scale is None else self.factor * scale


def minibatch(program: Any, data: Data, size: int, what: str) -> Minibatch:
    """The program as batches of `size` rows see it.

    Args:
        program: a model.
        data: all data.
        size: rows in a batch.
        what: the setting, as the user knows it, such as `SVI(batch_size=100)`.

    Raises:
        ValueError: if a part of the data cannot stand for the whole, under this program.
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
            f"`{what}`: `{local[0]}` has a value for each observation, and a batch has "
            "only some of them; leave `batch_size=None`, or integrate it out."
        )
    observed = observed_names(program, data)
    whole = [name for name in observed if name not in by_row]
    if whole or not observed:
        raise ValueError(
            f"`{what}`: the observed site `{whole[0] if whole else '?'}` does not have a "
            "row for each observation, so a batch cannot count for all; leave "
            "`batch_size=None`, or observe row by row in a `numpyro.plate`."
        )
    return Minibatch(program, frozenset(observed), len(data) / size)
