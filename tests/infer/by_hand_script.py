"""NUTS by probkit and by NumPyro alone, for `test_engines.py`: prints whether they agree.

Two programs round alike only if both are compiled with all of XLA's optimisations.
"""

import jax
import numpy as np
import numpyro

import probkit as pk
from own import NormalMean, Values


def main():
    pk.enable_x64()
    y = jax.random.normal(jax.random.key(0), (40, 2)) + jax.numpy.array([1.0, -2.0])
    model, data = NormalMean(), Values(y)
    settings = {"num_warmup": 50, "num_samples": 60, "chain_method": "vectorized"}
    method = pk.NUTS(2, **settings)
    fitted = pk.fit(model, data, method, key=jax.random.key(3), progress=False)
    key_run, _ = jax.random.split(jax.random.key(3))
    keys = jax.random.split(key_run, 2)
    start = jax.vmap(lambda k: method.init(model, data, k, None))(keys)
    mcmc = numpyro.infer.MCMC(
        numpyro.infer.NUTS(model), num_chains=2, progress_bar=False, **settings
    )
    own = jax.vmap(lambda k: jax.random.split(k)[1])(keys)
    mcmc.run(own, data, init_params=start.kernel.z)
    by_hand = mcmc.get_samples(group_by_chain=True)
    for name, draws in by_hand.items():
        np.testing.assert_array_equal(fitted.posterior[name].values, draws, err_msg=name)
    print(f"the same {sorted(by_hand)}")


if __name__ == "__main__":
    main()
