"""Checks of Markov chains: whether they agree, and how many draws they are worth."""

from functools import partial
from typing import Any

from probkit.method.worst import worst
from probkit.model.check import Check

# Effective draws per chain with which the ends of intervals are known well enough.
LEAST_EFFECTIVE = 100


def check_agreement(tree: Any, more: str, elsewhere: str) -> tuple[Check, ...]:
    """R-hat of the sites and of the log density; none with one chain.

    Args:
        tree: the labelled tree of the fit.
        more: how to run longer.
        elsewhere: how to start chains at one optimum.
    """
    import arviz_stats as azs

    posterior, stats = (tree[g].to_dataset() for g in ("posterior", "sample_stats"))
    if stats.sizes["chain"] == 1:
        return ()
    name, rhat = worst(posterior, azs.rhat, max)
    return (
        Check(
            "R-hat, highest",
            rhat,
            "at most",
            1.01,
            f"the chains differ: {more}, or {elsewhere}; if labels switched, see `relabel`",
            name,
        ),
        Check(
            "R-hat of the log density",
            float(azs.rhat(stats[["lp"]])["lp"]),
            "at most",
            1.01,
            f"chains are at different optima: {elsewhere}",
            "does not depend on labels",
        ),
    )


def check_effective(tree: Any, more: str) -> tuple[Check, ...]:
    """Effective draws in the bulk and in the tails.

    Args:
        tree: the labelled tree of the fit.
        more: how to run longer.
    """
    import arviz_stats as azs

    posterior = tree["posterior"].to_dataset()
    least = LEAST_EFFECTIVE * posterior.sizes["chain"]
    found = []
    for method in ("bulk", "tail"):
        name, effective = worst(posterior, partial(azs.ess, method=method), min)
        found.append(
            Check(f"{method} ESS, lowest", effective, "at least", least, more, name)
        )
    return tuple(found)
