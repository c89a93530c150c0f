"""A short simulation-based calibration; the long one is in `benchmarks/sbc_moe.py`."""

import sys
from pathlib import Path

import probkit as pk


def test_ranks_of_the_truth_are_uniform(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    monkeypatch.delitem(sys.modules, "timing", raising=False)
    import sbc_moe

    method = pk.NUTS(num_chains=2, num_warmup=200, num_samples=200)
    ranks, _ = sbc_moe.calibrate(24, 40, method, ranked=15, seed=3)
    # Six quantities, each tested at 1 in 1,000: a right sampler fails one seed in 170.
    for name, values in ranks.items():
        assert len(values) == 24
        assert sbc_moe.p_values(values, 15)["ecdf"] > 1e-3, name
