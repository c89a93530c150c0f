"""How a run begins and ends."""

import numpy as np
import pytest

from probkit.method import best_lane, repeated
from probkit.method.climb import check_restarts, facts_of_ends, largest_fall


def test_the_highest_objective_is_best():
    assert best_lane(np.array([1.0, 3.0, 2.0])) == 1


def test_a_degenerate_optimum_ranks_behind_all_others():
    # A likelihood that is infinite in theory is the highest in practice.
    objective, degenerate = np.array([50.0, -3.0, -2.0]), np.array([True, False, False])
    assert best_lane(objective, degenerate) == 2
    assert best_lane(objective, np.array([True, True, True])) == 0


def test_a_lane_that_failed_is_never_best():
    assert best_lane(np.array([np.nan, -1e300, -np.inf])) == 1


def test_falls_within_rounding_are_none():
    objective = np.array([[-1e6, -1e6 - 1e-9, -5.0, -5.5, np.nan]])
    assert largest_fall(objective) == pytest.approx(0.5)
    assert largest_fall(objective[:, :3]) == 0.0
    assert largest_fall(objective[:, :3], rounded=False) > 0


def test_a_best_optimum_found_once_needs_a_look():
    facts = facts_of_ends(np.array([1.0, 1.005, 0.2, -np.inf]), 1)
    assert facts == {"reached_best": 2, "num_restarts": 4, "distinct": 2}
    (check,) = check_restarts(facts)
    assert check.ok
    (check,) = check_restarts(facts_of_ends(np.array([1.0, 0.0]), 0))
    assert not check.ok
    assert check_restarts(facts_of_ends(np.array([1.0]), 0)) == ()


def test_a_point_is_repeated_as_draws_of_one_chain():
    draws = repeated({"a": np.arange(3.0), "b": np.array(1.0)}, 4)
    assert draws["a"].shape == (1, 4, 3)
    assert draws["b"].shape == (1, 4)
