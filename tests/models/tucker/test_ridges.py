"""Steps along directions that the data leave open keep the distribution, and do move."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probkit.models import tucker
from probkit.models.tucker.messages import started
from probkit.models.tucker.posterior import Gaussian
from probkit.models.tucker.ridges import slid

NUM, NOISE = 1000, 0.05
rng = np.random.default_rng(0)
COORDS = {
    "time": np.repeat([0.0, 0.7, 1.0, 2.0], 3),
    "station": np.tile(["a", "b", "c"], 4),
}
DATA = tucker.Entries(COORDS, rng.normal(size=12))


def before_and_after(model):
    """Draws of the prior with data from them, and the same after a step given the data."""

    def one(key):
        k_sites, k_start, k_white, k_noise, k_step = jax.random.split(key, 5)
        priors = model.priors(DATA)
        keys = jax.random.split(k_sites, len(priors))
        sites = {n: d.sample(k) for (n, d), k in zip(priors.items(), keys, strict=True)}
        post = started(
            model, DATA, {k: v for k, v in sites.items() if k not in OWN}, k_start
        )
        whites = []
        for k in range(2):
            shape = model.prior(sites, DATA, k).white_shape
            whites.append(jax.random.normal(jax.random.fold_in(k_white, k), shape))
        sites |= {f"white_{a.name}": w for a, w in zip(DATA.axes, whites, strict=True)}
        factors = model.factors(sites, DATA)
        level = (sites["level"] - DATA.y_mean) / DATA.y_sd
        core = sites.get("core", jnp.zeros(0)).reshape(-1)
        weight = jnp.full(12, NOISE**-2)

        def surface(sites, factors):
            f = model.surface(sites, DATA, factors, DATA.places)
            return (f - DATA.y_mean) / DATA.y_sd

        f = surface(sites, factors)
        y = f + NOISE * jax.random.normal(k_noise, (12,))
        pairs = zip(post.factors, factors, strict=True)
        post = replace(
            post,
            factors=tuple(replace(factor, mean=mean) for factor, mean in pairs),
            level=Gaussian(level[None], jnp.zeros((1, 1))),
            core=Gaussian(core, jnp.zeros((core.size, core.size))),
            weight=weight,
            shift=weight * y,
        )

        def told(post, whites):
            here = sites | post.sites
            here["level"] = DATA.y_mean + DATA.y_sd * post.level.mean[0]
            if "core" in here:
                here["core"] = post.core.mean.reshape(here["core"].shape)
            named = zip(DATA.axes, whites, strict=True)
            colored = model.factors(here | {f"white_{a.name}": w for a, w in named}, DATA)
            left = (y - surface(here, colored)) / NOISE
            parts = [*whites, post.level.mean, post.core.mean]
            scales = [v for k, v in post.sites.items() if k.startswith("scale")]
            flat = jnp.concatenate([jnp.ravel(a) for a in [*parts, *map(jnp.log, scales)]])
            apart = sum(
                jnp.abs(factor.mean - u).sum()
                for factor, u in zip(post.factors, colored, strict=True)
            )
            return {"x": flat, "left": left, "level": post.level.mean[0], "apart": apart}

        return told(post, whites), told(*slid(model, DATA, post, whites, k_step))

    return jax.jit(jax.vmap(one))(jax.random.split(jax.random.key(1), NUM))


OWN = ("level", "core", "noise_sd")


@pytest.fixture(scope="module", params=[tucker.CP(2), tucker.Tucker(2)], ids=["CP", "core"])
def pair(request):
    return before_and_after(request.param)


def test_draws_and_data_keep_their_distribution(pair):
    before, after = pair
    for name in ("x", "left"):
        for power in (1, 2):
            gain = np.asarray(after[name] ** power - before[name] ** power)
            standard = gain.mean(0) / np.maximum(gain.std(0) / np.sqrt(NUM), 1e-12)
            # Up to 60 numbers that are about normal: one run in 3,000 fails by chance.
            assert np.abs(standard).max() < 4.8, (name, power)
    gain = np.asarray(after["x"][:, :, None] * after["x"][:, None])
    gain = gain - np.asarray(before["x"][:, :, None] * before["x"][:, None])
    standard = gain.mean(0) / np.maximum(gain.std(0) / np.sqrt(NUM), 1e-12)
    assert np.abs(standard).max() < 5.5


def test_functions_are_those_of_their_white_noise(pair):
    assert float(pair[1]["apart"].max()) < 1e-8


def test_the_level_moves_although_the_noise_is_small(pair):
    before, after = pair
    moved = np.asarray(after["level"] - before["level"])
    # A block given the others moves it by the noise over the root of the entries, 0.014.
    assert np.median(np.abs(moved)) > 0.2
