"""New entries after a fit: at new points, with the old entries and without them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from probkit.models import tucker
from probkit.models.tucker.earlier import prior_of
from probkit.models.tucker.messages import at_entries, started, with_factor
from probkit.models.tucker.parameters import centres
from probkit.models.tucker.posterior import messages

KEY = jax.random.key(0)
MODEL = tucker.CP(1, effects=False)
METHOD = tucker.MessagePassing(
    num_starts=1, max_steps=300, atol=0.001, draws="approximation", num_draws=100
)
SITES = np.array(["a", "b", "c", "d"])


def table(seed, first, last, n):
    """Entries of days from `first` to `last`."""
    rng = np.random.default_rng(seed)
    day, site = rng.integers(first, last, n), rng.integers(0, 4, n)
    f = 5 + np.sin(day / 4) * np.array([0.5, 1.0, 1.5, 2.0])[site]
    return {"day": day, "site": SITES[site]}, f + 0.2 * rng.normal(size=n)


@pytest.fixture(scope="module")
def parts():
    """Earlier entries, new ones of other days, and both."""
    earlier = tucker.Entries(*table(0, 0, 15, 120))
    new = tucker.Entries(*table(1, 12, 20, 40), units=earlier.units)
    return earlier, new, earlier.joined(new)


def test_joined_entries_are_those_of_both(parts):
    earlier, new, both = parts
    assert len(both) == 160
    assert list(both.axes[0].points) == list(range(20))
    for k in range(2):
        given = np.concatenate([d.axes[k].coords()[d.places[:, k]] for d in (earlier, new)])
        np.testing.assert_array_equal(both.axes[k].coords()[both.places[:, k]], given)
    assert both.axes[0].length == earlier.axes[0].length
    assert both.y_sd == earlier.y_sd


def test_labels_keep_their_places_and_dates_their_origin():
    day = np.array(["2020-03-01", "2020-03-05"], "datetime64[D]")
    first = tucker.Entries({"t": day, "s": ["9", "10"]}, [0.0, 1.0])
    second = tucker.Entries(
        {"t": day[:1] - np.timedelta64(30, "D"), "s": ["11"]}, [2.0], units=first.units
    )
    both = first.joined(second)
    assert both.axes[1].labels == (*first.axes[1].labels, "11")
    assert both.axes[0].origin == "2020-03-01"
    assert both.axes[0].coords()[both.places[2, 0]] == day[0] - np.timedelta64(30, "D")


def test_entries_that_do_not_belong_together_are_refused(parts):
    earlier, _, _ = parts
    coords, y = table(2, 0, 5, 10)
    other = tucker.Entries({"day": coords["day"], "place": coords["site"]}, y)
    with pytest.raises(ValueError, match="with the modes day, place; the others have day"):
        earlier.joined(other)
    with pytest.raises(ValueError, match="with and without `exposure`"):
        earlier.joined(tucker.Entries(coords, y, exposure=np.ones(10)))
    with pytest.raises(ValueError, match="holds labels; the data of the fit have numbers"):
        earlier.joined(tucker.Entries({**coords, "day": coords["site"]}, y))


def test_with_the_other_modes_known_an_update_is_the_fit_of_all(parts):
    earlier, new, both = parts

    def known(data):
        """A posterior that is certain of all but the days."""
        post = jax.jit(lambda key: started(MODEL, data, centres(MODEL, data), key))(KEY)
        site = replace(
            post.factors[1],
            mean=jnp.array([[0.5], [1.0], [1.5], [2.0]]),
            covariance=jnp.zeros((4, 1, 1)),
        )
        level = replace(post.level, covariance=jnp.zeros((1, 1)))
        return replace(post, factors=(post.factors[0], site), level=level)

    def days(data, post):
        @jax.jit
        def one(post):
            post = at_entries(MODEL, data, post)
            return with_factor(MODEL, data, post, messages(MODEL, data, post, 0), 0)

        return one(replace(post, noise=START.noise))

    START = known(both)
    at_once = days(both, START).factors[0]
    first = days(earlier, replace(known(earlier), sites=START.sites))
    data, before = prior_of(MODEL, earlier, new, first)
    post = replace(START, before=before.before)
    then = days(data, post).factors[0]
    np.testing.assert_allclose(then.mean, at_once.mean, rtol=1e-8)
    np.testing.assert_allclose(then.covariance, at_once.covariance, rtol=1e-8)
    # Without what was known before, it is not.
    alone = days(data, START).factors[0]
    assert jnp.abs(alone.mean - at_once.mean).max() > 0.1


@pytest.fixture(scope="module")
def fits(parts):
    earlier, new, both = parts
    first = pk.fit(MODEL, earlier, METHOD, key=KEY)
    return {
        "first": first,
        "warm": pk.fit(MODEL, both, METHOD, key=KEY, start=first),
        "updated": pk.update(first, new, key=KEY),
        "all": pk.fit(MODEL, both, METHOD, key=jax.random.key(1)),
    }


def apart(one, other, asked):
    """The distance of two fits in sds, root mean square, and the ratio of their sds."""
    ours, theirs = (pk.moments(fit, asked) for fit in (one, other))
    far = (ours["mean"] - theirs["mean"]) / theirs["sd"]
    return float(np.sqrt(np.mean(far**2))), ours["sd"] / theirs["sd"]


def test_a_start_at_a_fit_of_fewer_points_ends_at_the_fit_of_all(fits):
    assert fits["warm"].facts["elbo"] > fits["all"].facts["elbo"] - 0.1
    asked = {"day": np.repeat(np.arange(20), 4), "site": np.tile(SITES, 20)}
    distance, ratio = apart(fits["warm"], fits["all"], asked)
    assert distance < 0.2
    np.testing.assert_allclose(ratio, 1.0, rtol=0.1)


def test_an_update_is_close_to_the_fit_of_all(fits, parts):
    asked = {"day": np.repeat(np.arange(20), 4), "site": np.tile(SITES, 20)}
    distance, ratio = apart(fits["updated"], fits["all"], asked)
    # Kernels and scales are those of the first entries.
    assert distance < 0.7
    np.testing.assert_allclose(ratio, 1.0, rtol=0.35)
    without, _ = apart(fits["first"], fits["all"], asked)
    assert without > 2.0
    assert len(fits["updated"].data) == len(parts[1])
    assert pk.diagnose(fits["updated"])["largest fall of the ELBO"].ok


def test_an_update_by_one_entry_of_a_new_label_and_another_update(fits):
    first = fits["first"]
    units = first.data.units
    one = tucker.Entries({"day": [30], "site": ["new"]}, [9.0], units=units)
    again = pk.update(first, one, key=KEY)
    asked = {"day": [30, 3], "site": ["new", "a"]}
    before, after = (pk.moments(fit, asked) for fit in (first, again))
    assert after["mean"][0] > before["mean"][0] + 0.5
    assert after["sd"][0] < before["sd"][0]
    np.testing.assert_allclose(after["mean"][1], before["mean"][1], atol=0.1)
    assert again.approximation.noise.shape == first.approximation.noise.shape + 0.5
    assert pk.diagnose(again).checks


def test_fits_that_cannot_be_updated_say_so(fits, parts, no_checker):
    first, new = fits["first"], parts[1]
    with pytest.raises(ValueError, match=r"`NUTS` cannot take the posterior"):
        pk.update(first, new, key=KEY, method=pk.NUTS())
    with pytest.raises(ValueError, match=r"update\(fit, ...\)` got"):
        pk.update(MODEL, new, key=KEY)
    drawn = replace(first, approximation=None)
    with pytest.raises(ValueError, match="cannot take the posterior"):
        pk.update(drawn, new, key=KEY)
