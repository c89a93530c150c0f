"""Data from known experts."""

from typing import Any

from jaxtyping import PRNGKeyArray

from probkit.models.moe.mixture import MixtureOfExperts
from probkit.models.moe.pairs import Pairs
from probkit.validate import as_array, as_key, column_names, short


def simulate(
    key: PRNGKeyArray,
    x: Any,
    gate: Any,
    coefficient: Any,
    noise_sd: Any,
) -> Pairs:
    """Data from known experts.

    Args:
        key: a JAX random key.
        x: inputs, shape `(n,)` or `(n, d)`, with two observations or more.
        gate: shape `(d + 1, K)`, the intercepts first, in logits per unit of the input.
            Its rows need not sum to zero.
        coefficient: shape `(d + 1, K)`, the intercepts first, in units of the output per
            unit of the input.
        noise_sd: shape `(K,)`, positive, in units of the output.

    Returns:
        `Pairs` with the inputs and simulated outputs.

    Raises:
        ValueError: if the shapes do not match.
    """
    key, names = as_key(key, "simulate(key=...)"), x
    x = as_array(x, "simulate(x=...)")
    if x.ndim not in (1, 2) or len(x) < 2:
        raise ValueError(
            f"`simulate(x=...)` has shape {x.shape}; it takes (n,) or (n, d), with two "
            "observations or more."
        )
    x = x[:, None] if x.ndim == 1 else x
    given = {"gate": gate, "coefficient": coefficient, "noise_sd": noise_sd}
    sites = {k: as_array(v, f"simulate({k}=...)") for k, v in given.items()}
    sites = {k: v.astype(x.dtype) for k, v in sites.items()}
    σ = sites["noise_sd"]
    if σ.ndim != 1 or σ.size == 0 or not bool((σ > 0).all()):
        raise ValueError(
            f"`simulate(noise_sd={short(noise_sd)})`: it takes a positive number for each "
            "expert, shape (K,)."
        )
    shape = (x.shape[1] + 1, len(σ))
    for name in ("gate", "coefficient"):
        if sites[name].shape != shape:
            raise ValueError(
                f"`simulate({name}=...)` has shape {sites[name].shape}; with {len(σ)} "
                f"experts and {x.shape[1]} inputs it takes {shape}."
            )
    mixture = MixtureOfExperts(num_experts=len(σ)).conditional(sites, x)
    data = Pairs(x, mixture.sample(key), inputs=column_names(names, x.shape[1]))
    if data.unfit:
        raise ValueError(data.unfit)
    return data
