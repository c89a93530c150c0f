"""Settings of the whole run, and fits that several tests look at."""

import gc
import os
from importlib.metadata import version
from pathlib import Path

# Before JAX starts: two devices, for chains side by side; the older code generator and no
# optimisation, which make the same numbers but for rounding, and compile in half the time;
# each program in one piece, because both cores are busy and pieces cost a compiler each.
# Flags come and go, and an unknown one ends the process.
os.environ["XLA_FLAGS"] = " ".join(
    (
        os.environ.get("XLA_FLAGS", ""),
        "--xla_force_host_platform_device_count=2",
        *(
            (
                "--xla_cpu_use_fusion_emitters=false",
                "--xla_backend_optimization_level=0",
                "--xla_cpu_parallel_codegen_split_count=1",
            )
            if version("jaxlib").startswith("0.10.")
            else ()
        ),
    )
)
os.environ.setdefault("MPLBACKEND", "Agg")
# Threads of the linear algebra would wait, busily, for those of JAX.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import jax
import jaxtyping
import pytest

import probkit as pk
from probkit.models import moe

pk.enable_x64()
# Another folder may be named, such as an empty one, to see what a first run costs.
HERE = Path(__file__).parents[1] / ".jax-cache"
pk.use_compilation_cache(os.environ.get("PROBKIT_TEST_CACHE") or HERE)


# Each process gets whole files. These take long, and one of them at the end would leave
# the other process without work.
FIRST = {"test_docs.py", "test_notebooks.py", "test_sklearn.py", "test_families.py"}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_collection_finish():
    # Tracing makes many small objects, and each full collection would walk through all
    # modules and tests, which stay until the end.
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 50, 100)


@pytest.fixture(scope="session")
def key():
    return jax.random.key(2026)


@pytest.fixture(scope="session")
def regimes():
    """Two crossing lines, known: expert 0 is in force on the left."""
    x = jax.random.uniform(jax.random.key(1), (300,), minval=-2.0, maxval=2.0)
    return moe.simulate(
        jax.random.key(2),
        x,
        gate=TRUTH["gate"],
        coefficient=TRUTH["coefficient"],
        noise_sd=TRUTH["noise_sd"],
    )


# The gate in the sum-to-zero gauge; rows are intercept and slope, columns experts.
TRUTH = {
    "gate": [[0.25, -0.25], [-1.5, 1.5]],
    "coefficient": [[1.0, -1.0], [2.0, -1.0]],
    "noise_sd": [0.5, 0.8],
}


@pytest.fixture(scope="session")
def pair():
    return moe.MixtureOfExperts(num_experts=2)


@pytest.fixture(scope="session")
def em_fit(pair, regimes, key):
    return pk.fit(pair, regimes, pk.EM(num_draws=2000), key=key)


NUTS = pk.NUTS(num_chains=2, num_warmup=400, num_samples=600)


@pytest.fixture(scope="session")
def nuts_fit(pair, regimes, em_fit, key):
    return pk.fit(pair, regimes, NUTS, key=key, start=em_fit)


@pytest.fixture(scope="session")
def svi_fit(pair, regimes, em_fit, key):
    method = pk.SVI(guide="multivariate_normal", num_draws=2000)
    return pk.fit(pair, regimes, method, key=key, start=em_fit)


@pytest.fixture
def no_checker():
    # Users run without the shape checker, which would speak before our messages do.
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
