"""A short simulation-based calibration of each family; the long ones: `benchmarks`."""

import importlib
import sys
from pathlib import Path

import pytest

import probkit as pk


@pytest.mark.parametrize(
    "study, rounds", [("sbc_gp", 12), ("sbc_moe", 24), ("sbc_sbl", 16)]
)
def test_ranks_of_the_truth_are_uniform(monkeypatch, study, rounds):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for module in ("timing", "sbc", study):
        monkeypatch.delitem(sys.modules, module, raising=False)
    module, sbc = importlib.import_module(study), importlib.import_module("sbc")

    method = pk.NUTS(num_chains=2, num_warmup=200, num_samples=200)
    ranks, _ = module.calibrate(rounds, method, ranked=15, seed=3)
    # Six to eight quantities, each tested at 1 in 1,000: a right sampler fails one seed
    # in 125.
    for name, values in ranks.items():
        assert len(values) == rounds
        assert sbc.p_values(values, 15)["ecdf"] > 1e-3, name


def test_functional_cp_is_calibrated_by_gibbs_sampling(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for module in ("timing", "sbc", "sbc_tucker"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    module, sbc = importlib.import_module("sbc_tucker"), importlib.import_module("sbc")
    exact, _ = module.calibrate(16, module.gibbs(quick=True), 15, 3, ("CP(1)",))
    for name, values in exact.items():
        assert sbc.p_values(values, 15)["ecdf"] > 1e-3, name
    # The level was at one end of its draws in nearly all rounds before it could move.
    assert sbc.coverage(exact["CP(1): level"], 15) > 0.3


def test_linear_episodes_are_calibrated_by_gibbs_sampling(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "benchmarks"))
    for module in ("timing", "sbc", "sbc_meta"):
        monkeypatch.delitem(sys.modules, module, raising=False)
    module, sbc = importlib.import_module("sbc_meta"), importlib.import_module("sbc")
    method = module.meta.Gibbs(num_chains=1, num_warmup=50, num_samples=150)
    ranks, _ = module.calibrate(24, method, 15, 3)
    # Fifteen quantities, each tested at 1 in 1,000: a right sampler fails one seed in 66.
    assert len(ranks) == 15
    for name, values in ranks.items():
        assert sbc.p_values(values, 15)["ecdf"] > 1e-3, name
