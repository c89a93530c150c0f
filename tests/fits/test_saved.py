"""Files that an earlier version saved still load, and predict."""

from pathlib import Path

import jax
import numpy as np
import pytest

import probkit as pk

SAVED = Path(__file__).parents[1] / "saved"
# A site's mean absolute value in each file, as the version that saved it printed it.
KNOWN = {
    "moe": ("NUTS", "coefficient", 3.798717090946083),
    "sbl": ("TypeII", "global_scale", 2.0629673500622587),
    "pde": ("Closed", "rate", 0.7839589862401033),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_file_of_the_first_format_loads(name):
    method, site, value = KNOWN[name]
    fitted = pk.load(SAVED / f"{name}.nc")
    assert type(fitted.method).__name__ == method
    assert float(abs(fitted.posterior[site]).mean()) == pytest.approx(value, rel=1e-12)
    assert len(list(pk.diagnose(fitted))) > 3


@pytest.mark.parametrize("name", KNOWN)
def test_it_predicts_and_is_saved_again(name, tmp_path):
    fitted = pk.load(SAVED / f"{name}.nc")
    key = jax.random.key(0)
    inputs = fitted.data if name != "pde" else np.array([0.5, 1.0])
    before = pk.predict(fitted, inputs, key=key)
    again = pk.load(pk.save(fitted, tmp_path / "again.nc"))
    assert pk.predict(again, inputs, key=key).equals(before)
