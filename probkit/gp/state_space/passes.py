r"""The filter, and the smoother, of a Markov chain with Gaussian sites.

With $S = H P H^T$ and $B = I + Λ S$ of the prediction $N(m, P)$ of the state, the filter is

$$P_f = T P, \quad m_f = m + P H^T B^{-1} (η - Λ H m), \quad T = I - P H^T B^{-1} Λ H,$$

and backwards, with $λ^+$ and $Ξ^+$ of the next place carried through its transition,

$$λ = H^T B^{-1} (η - Λ H m) + T^T λ^+, \qquad Ξ = H^T B^{-1} Λ H + T^T Ξ^+ T,$$

so that the smoothed state is $N(m + P λ,\; P - P Ξ P)$. Derivatives of the log evidence are
made of them too: $∂/∂m = λ$ and $∂/∂P = (λ λ^T - Ξ) / 2$.

The chain may be cut into blocks, which are then worked through side by side. Given the
state $z$ at its start, the state at the end of a block is $N(Φ z + b, C)$, and its sites
have the likelihood $\exp(η^T z - z^T J z / 2)$ up to a factor. These five are its
*element*. The elements of all blocks give the filtered state before each of them, and the
likelihood of all sites after it. The result is that of a single block but for rounding.

Arrays have the places of a block on their first axis and, if there are several blocks, the
blocks on their last one.

Source: Särkkä & Svensson (2023), "Bayesian filtering and smoothing", chapter 12, for the
filter; Bierman (1973), "Fixed interval smoothing with discrete measurements", for the
backward recursion; Särkkä & García-Fernández (2021), "Temporal parallelization of Bayesian
smoothers", for elements.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from probkit.gp.state_space.small import (
    apply,
    identity,
    product,
    sandwich,
    solve,
    symmetric,
    transpose,
)


class Chain(NamedTuple):
    """A process at some places, and its sites.

    The transition to the first place is zero, and its noise is the stationary covariance.
    """

    transition: Float[Array, "n d d *k"]
    noise: Float[Array, "n d d *k"]
    precision: Float[Array, "n r r *k"]
    shift: Float[Array, "n r *k"]
    readout: Float[Array, "r d *one"]


class Place(NamedTuple):
    """What the filter knows of one place: the prediction of its state, and its site."""

    mean: Array  # m
    covariance: Array  # P
    before: Array  # m_f of the place before
    cross: Array  # A P_f of the place before
    score: Array  # B^{-1} (η - Λ H m)
    gain: Array  # B^{-1} Λ
    log_evidence: Array


class Element(NamedTuple):
    """What a block says of the state at its end, given that at its start."""

    transition: Float[Array, "d d *k"]  # Φ
    mean: Float[Array, "d *k"]  # b
    covariance: Float[Array, "d d *k"]  # C
    shift: Float[Array, "d *k"]  # η
    precision: Float[Array, "d d *k"]  # J


def _advance(H, given, m, P) -> Place:
    """From the filtered state of one place to the prediction and the site of the next."""
    A, Q, Λ, η = given
    cross = product(A, P)
    before, m, P = m, apply(A, m), symmetric(product(cross, transpose(A)) + Q)
    S, u = sandwich(H, P), apply(H, m)
    r = η - apply(Λ, u)
    right = jnp.concatenate([r[:, None], Λ], axis=1)
    solved, logdet = solve(identity(S) + product(Λ, S), right)
    score, gain = solved[:, 0], symmetric(solved[:, 1:])
    # η u - u Λ u / 2 = (η + r) u / 2
    quadratic = ((η + r) * u + r * apply(S, score)).sum(0)
    return Place(m, P, before, cross, score, gain, (quadratic - logdet) / 2)


def _filtered(H, place: Place) -> tuple[Array, Array]:
    PH = product(place.covariance, transpose(H))
    m = place.mean + apply(PH, place.score)
    return m, symmetric(place.covariance - sandwich(PH, place.gain))


def _forward(chain: Chain, start) -> Place:
    H = chain.readout

    def step(state, given):
        place = _advance(H, given, *state)
        return _filtered(H, place), place

    return jax.lax.scan(step, start, chain[:4])[1]


def _backward(chain: Chain, places: Place, end, read: Callable[..., Any]):
    """What `read` makes of each place, see `read_all`."""
    H = chain.readout

    def step(carry, given):
        λ, Ξ = carry  # of the next place, carried through its transition
        A, place, rest = given
        PH, G = product(place.covariance, transpose(H)), place.gain
        # T^T v = v - H^T G (P H^T)^T v
        λ = λ + apply(transpose(H), place.score - apply(G, apply(transpose(PH), λ)))
        GH = product(G, transpose(PH))
        ΞT = Ξ - product(product(Ξ, transpose(GH)), H)
        Ξ = ΞT - product(transpose(H), product(GH, ΞT)) + sandwich(transpose(H), G)
        Ξ = symmetric(Ξ)
        carried = apply(transpose(A), λ), sandwich(transpose(A), Ξ)

        def covariance(M):
            MP = product(M, place.covariance)
            return symmetric(product(MP, transpose(M)) - sandwich(MP, Ξ))

        return carried, read(H, place, λ, Ξ, covariance, rest)

    given = (chain.transition, places, (chain.precision, chain.shift))
    return jax.lax.scan(step, end, given, reverse=True)[1]


def _elements(chain: Chain) -> Element:
    """The element of each block."""
    H, A = chain.readout, chain.transition[0]

    def step(element: Element, given):
        place = _advance(H, given, element.mean, element.covariance)
        Φ = product(given[0], element.transition)
        PH, HΦ = product(place.covariance, transpose(H)), product(H, Φ)
        GHΦ = product(place.gain, HΦ)
        return Element(
            Φ - product(PH, GHΦ),
            *_filtered(H, place),
            element.shift + apply(transpose(HΦ), place.score),
            element.precision + product(transpose(HΦ), GHΦ),
        ), None

    v, M = jnp.zeros_like(A[:, 0]), jnp.zeros_like(A)
    return jax.lax.scan(step, _none(Element(M, v, M, v, M)), chain[:4])[0]


def _combined(first: Element, second: Element) -> Element:
    """The element of two blocks, of which the second follows the first."""
    # W = (I + C J)^{-1} with C of the first and J of the second
    C, J = first.covariance, second.precision
    right = jnp.concatenate(
        [
            first.transition,
            (first.mean + apply(C, second.shift))[:, None],
            C,
        ],
        axis=1,
    )
    d = len(C)
    solved, _ = solve(identity(C) + product(C, J), right)
    WΦ, mean, WC = solved[:, :d], solved[:, d], solved[:, d + 1 :]
    shift = second.shift - apply(J, first.mean)
    return Element(
        product(second.transition, WΦ),
        apply(second.transition, mean) + second.mean,
        symmetric(sandwich(second.transition, WC) + second.covariance),
        apply(transpose(WΦ), shift) + first.shift,
        symmetric(product(transpose(first.transition), product(J, WΦ)) + first.precision),
    )


def _around(elements: Element, tree: bool) -> tuple[Element, Element]:
    """For each block, the element of all blocks before it, and of all after it."""
    if tree:
        return _by_tree(elements)
    each = jax.tree.map(lambda a: jnp.moveaxis(a, -1, 0), elements)
    none = _none(jax.tree.map(lambda a: a[0], each))

    def ahead(total, element):
        return _combined(total, element), total

    def back(total, element):
        return _combined(element, total), total

    before = jax.lax.scan(ahead, none, each)[1]
    after = jax.lax.scan(back, none, each, reverse=True)[1]
    return jax.tree.map(lambda a: jnp.moveaxis(a, 0, -1), (before, after))


def _by_tree(elements: Element) -> tuple[Element, Element]:
    """The same by doubling: after `j` rounds an element has those of `2^j` blocks.

    All rounds have the same shapes, so that one of them is compiled, and not one per level.

    Source: Hillis & Steele (1986), "Data parallel algorithms".
    """
    none, k = _none(elements), elements.mean.shape[-1]
    place = jnp.arange(k)

    def moved(elements, by):
        """Those `by` places before, and nothing where there is none."""
        source = place - by
        inside = (source >= 0) & (source < k)
        return jax.tree.map(
            lambda a, o: jnp.where(inside, jnp.take(a, source, -1, mode="clip"), o),
            elements,
            none,
        )

    def double(j, both):
        ahead, behind = both
        by = 2**j
        return _combined(moved(ahead, by), ahead), _combined(behind, moved(behind, -by))

    rounds = max(k - 1, 0).bit_length()
    ahead, behind = jax.lax.fori_loop(0, rounds, double, (elements, elements))
    return moved(ahead, 1), moved(behind, -1)


def _none(like: Element) -> Element:
    """The element of no places."""
    none = jax.tree.map(jnp.zeros_like, like)
    return none._replace(transition=none.transition + identity(none.transition))


def _ends(chain: Chain):
    """The filtered state before each block, and the element of all that follows it."""
    m, P = jnp.zeros_like(chain.transition[0, :, 0]), jnp.zeros_like(chain.noise[0])
    if m.ndim == 1:
        return (m, P), None
    rows, blocks = len(chain.shift), chain.shift.shape[-1]
    before, after = _around(_elements(chain), tree=blocks > rows)
    # Before the first block there is nothing, and the first transition is zero.
    return (before.mean, before.covariance), after


def evidence_of_sites(chain: Chain) -> Float[Array, ""]:
    """The log evidence, by the filter alone."""
    return _forward(chain, _ends(chain)[0]).log_evidence.sum()


def read_all(chain: Chain, read: Callable[..., Any]) -> tuple[Float[Array, ""], Any]:
    """The log evidence, and what a function makes of each place.

    Args:
        chain: the chain.
        read: called with the readout, the place, $λ$, $Ξ$, a function that makes
            $M P_s M^T$ of $M$ with the smoothed covariance $P_s$, and the site.
    """
    start, after = _ends(chain)
    places = _forward(chain, start)
    m, P = places.mean[-1], places.covariance[-1]
    λ, Ξ = jnp.zeros_like(m), jnp.zeros_like(P)
    if after is not None:
        last = jax.tree.map(lambda a: a[-1], places)
        m, P = _filtered(chain.readout, last)
        η, J = after.shift, after.precision
        # The likelihood of what follows, seen from N(m, P)
        right = jnp.concatenate([(η - apply(J, m))[:, None], J], axis=1)
        solved, _ = solve(identity(P) + product(J, P), right)
        λ, Ξ = solved[:, 0], symmetric(solved[:, 1:])
    return places.log_evidence.sum(), _backward(chain, places, (λ, Ξ), read)
