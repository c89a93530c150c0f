"""Products of float32 matrices have all their digits, on a GPU too."""

import jax
import jax.numpy as jnp
import pytest

import probkit as pk
from own import NormalMean, Values
from probkit.models import tucker
from probkit.settings import with_all_digits

KEY = jax.random.key(0)
SEEN = []


class Looks(NormalMean):
    """Notes which digits products have where it is traced."""

    def __call__(self, data):
        SEEN.append(jax.config.jax_default_matmul_precision)
        super().__call__(data)


def test_what_a_user_calls_asks_for_all_digits():
    SEEN.clear()
    data = Values(jnp.array([[0.1, 0.2], [0.3, 0.1], [0.2, 0.4]]))
    fitted = pk.fit(Looks(), data, pk.MAP(2, num_draws=5), key=KEY)
    fits = len(SEEN)
    pk.prior(Looks(), data, key=KEY)
    assert 0 < fits < len(SEEN)
    assert set(SEEN) == {"highest"}
    assert fitted.result == "successful"


def test_a_setting_of_the_program_is_kept():
    digits = with_all_digits(lambda: jax.config.jax_default_matmul_precision)
    assert digits() == "highest"
    with jax.default_matmul_precision("tensorfloat32"):
        assert digits() == "tensorfloat32"
    assert jax.config.jax_default_matmul_precision is None


@pytest.mark.parametrize("call", [True, False], ids=["with", "without"])
def test_a_product_for_a_gpu_says_so(call):
    function = lambda x: jax.jit(jnp.matmul).lower(x, x).as_text()  # noqa: E731
    text = (with_all_digits(function) if call else function)(jnp.ones((3, 3), jnp.float32))
    assert ("HIGHEST" in text) is call


def test_an_interpolant_is_computed_and_read_with_all_digits():
    SEEN.clear()

    def function(points):
        SEEN.append(jax.config.jax_default_matmul_precision)
        return points.prod(-1)

    value = tucker.chebyshev(function, [(0.0, 1.0)] * 2, 3)
    assert SEEN == ["highest"]
    points = jnp.ones((4, 2))
    assert "HIGHEST" in jax.jit(lambda p: value(p)).lower(points).as_text()
