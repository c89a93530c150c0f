"""Leaps along the direction of steps lead where the steps would."""

import jax.numpy as jnp
import numpy as np

from probkit.method.leaps import dropped, leapt, no_leap

ONE = jnp.ones(())
GOAL = jnp.linspace(-3.0, 5.0, 6)


def step(x):
    return GOAL + 0.9 * (x - GOAL)


def test_a_leap_after_steps_that_shrink_by_one_factor_is_to_their_limit():
    no, yes = jnp.zeros((), bool), jnp.ones((), bool)
    first = GOAL + jnp.linspace(-1.0, 1.0, len(GOAL))
    one = leapt(no_leap(first), step(first), gain=ONE * 11, small=no)
    assert not one.ahead
    np.testing.assert_allclose(one.at, step(first), rtol=1e-12)
    two = leapt(one, step(one.at), gain=ONE * 9, small=yes)
    assert two.ahead
    np.testing.assert_allclose(two.at, GOAL, atol=1e-9)
    assert (int(one.quiet), int(two.quiet)) == (0, 1)


def test_a_leap_that_is_dropped_leaves_the_end_of_the_last_step():
    first = GOAL + 1.0
    leap = leapt(no_leap(first), step(first), gain=ONE, small=jnp.zeros((), bool))
    back = dropped(leap)
    assert not back.ahead
    np.testing.assert_array_equal(back.at, step(first))
