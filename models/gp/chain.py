"""A kernel of time as a Markov chain."""

import functools
from typing import Any

import jax.numpy as jnp

from probkit.gp.state_space import AbstractProcess, Independent, Product, Sites, Sum
from probkit.model.density import Sites as Draw
from probkit.models.gp.kernels import Structure


def refuse_no_chain(structure: Structure) -> None:
    """Refuse kernels that have no Markov state."""
    for leaf in structure.leaves.values():
        if not leaf.is_chain:
            raise ValueError(
                f"`Temporal` got `{type(leaf).__name__}()`, which is no Markov process; "
                f"use {leaf.instead}, or give fewer values to `gp.Observed`."
            )


def terms_of(
    structure: Structure, draw: Draw, data: Any, num_waves: int
) -> tuple[AbstractProcess, ...]:
    """The process of each term of a kernel.

    Args:
        structure: the kernel.
        draw: its sites.
        data: the data, whose units are those of the function.
        num_waves: how many waves stand for a function that repeats.
    """

    def process(name: str, variance: Any) -> AbstractProcess:
        θ, column = structure.parameters(name, draw, data)
        return structure.leaves[name].process(θ, column, variance, num_waves)

    def product(term: tuple[str, ...]) -> AbstractProcess:
        first = process(term[0], structure.variance(term, draw))
        return functools.reduce(Product, (process(name, 1.0) for name in term[1:]), first)

    return tuple(map(product, structure.terms))


def added(terms: tuple[AbstractProcess, ...]) -> AbstractProcess:
    """The process of their sum."""
    return terms[0] if len(terms) == 1 else Sum(terms)


def apart(
    terms: tuple[AbstractProcess, ...], sites: Sites
) -> tuple[AbstractProcess, Sites]:
    """The process whose values are the terms, and sites of their sum as sites of them."""
    ones = jnp.ones(len(terms), sites.shift.dtype)
    precision = sites.precision * jnp.outer(ones, ones)
    return Independent(terms), Sites(precision, sites.shift * ones)
