"""Batches: a program in which the rows of a step count for all rows."""

from typing import Any

import equinox as eqx
import numpyro

from probkit.method.keys import two_keys
from probkit.model import Data
from probkit.model.density import latent_names, observed_names, sites_by_row
from probkit.model.source import Rounds


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


class Counted(eqx.Module):
    """A model, and for how many rows each of a batch counts, for a method that scales.

    Attributes:
        model: the model.
        factor: the number of rows.
    """

    model: Any
    factor: float = eqx.field(static=True)

    def __call__(self, batch: Data) -> None:
        self.model(batch)


def counted(begun: Any, model: Any, data: Data, batch_size: int | None) -> Any:
    """A run on all data in each step, or on batches in turn, which count for all.

    Args:
        begun: where the run begins, a `Begin`.
        model: its model.
        data: all data.
        batch_size: the number of rows per step, or None for all.
    """
    if batch_size is None or batch_size >= len(data):
        return begun._replace(program=Counted(model, 1.0))
    key_run, key_rows = two_keys(begun.key_run)
    return begun._replace(
        program=Counted(model, len(data) / batch_size),
        source=Rounds.of(data, key_rows, batch_size),
        key_run=key_run,
    )


def minibatch(program: Any, data: Data, factor: float, what: str) -> Minibatch:
    """The program for batches.

    Args:
        program: a model.
        data: data of the model, for the shapes of its sites.
        factor: the number of rows for which each row of a batch counts.
        what: the setting in messages, such as `SVI(batch_size=100)`.

    Returns:
        A program that takes a batch.

    Raises:
        ValueError: if a batch cannot count for all rows: a latent site has one value per
            observation, or an observed site has not.
    """
    refuse_local(program, data, what)
    by_row, observed = sites_by_row(program, data), observed_names(program, data)
    whole = [name for name in observed if name not in by_row]
    if whole or not observed:
        raise ValueError(
            f"`{what}`: the observed site `{whole[0] if whole else '?'}` does not have one "
            "row per observation, so that a batch cannot count for all; fit all data at "
            "once (`batch_size=None`), or observe row by row in a `numpyro.plate`."
        )
    return Minibatch(program, frozenset(observed), factor)


def refuse_local(program: Any, data: Data, what: str) -> None:
    """Refuse a program with latent values of each observation, which change by step.

    Args:
        program: a model.
        data: data of the model.
        what: the setting in messages.

    Raises:
        ValueError: with the name of such a site.
    """
    by_row = sites_by_row(program, data)
    local = [name for name in latent_names(program, data) if name in by_row]
    if local:
        raise ValueError(
            f"`{what}`: `{local[0]}` has one value per observation, and a batch has "
            "only some of them; fit all data at once (`batch_size=None`), or integrate it "
            "out."
        )
