"""Pictures: what is drawn is what the fit holds."""

import subprocess
import sys
from dataclasses import replace

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import numpyro
import numpyro.distributions as dist
import pytest
import xarray as xr
from jaxtyping import Array, Float
from matplotlib.colors import to_hex

import probkit as pk
from probkit import datasets, plots
from probkit.model import AbstractData, AbstractModel
from probkit.models import moe
from probkit.plots import style

SAMPLE = ("chain", "draw")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def changed(fitted, **groups):
    """The same fit with other groups in its tree; None leaves one out."""
    whole = {name: node.to_dataset() for name, node in fitted.tree.children.items()}
    kept = {k: v for k, v in (whole | groups).items() if v is not None}
    return replace(fitted, tree=xr.DataTree.from_dict(kept))


def as_point(fitted):
    return changed(fitted, posterior=fitted.posterior.isel(chain=[0], draw=[0]))


def lines(ax):
    """The lines with something in them, `(colour, x, y)` each."""
    drawn = [(to_hex(l.get_color()), *l.get_data()) for l in ax.get_lines()]
    return [line for line in drawn if np.size(line[1])]


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


@pytest.fixture(scope="module")
def two_inputs():
    birds = datasets.penguins().isel(penguin=slice(0, None, 4))
    bill = birds[["bill_length_mm", "bill_depth_mm"]].to_dataarray("input").T
    model, data = moe.MixtureOfExperts(num_experts=2), moe.Pairs(bill, birds.body_mass_g)
    return pk.fit(model, data, pk.EM(num_restarts=2), key=jax.random.key(0), throw=False)


class Counts(AbstractData):
    """Counts `y` at inputs `x` of one dimension."""

    x: Float[Array, " n"]
    y: Float[Array, " n"]

    def __len__(self):
        return self.y.shape[0]

    def take(self, indices):
        return Counts(self.x[indices], self.y[indices])

    @classmethod
    def restore(cls, arrays, fields):
        return cls(arrays["x"], arrays["y"])


class PoissonRegression(AbstractModel):
    """y ~ Poisson(exp(intercept + slope x))."""

    def __call__(self, data):
        intercept = numpyro.sample("intercept", dist.Normal(0.0, 3.0))
        slope = numpyro.sample("slope", dist.Normal(0.0, 1.0))
        with numpyro.plate("observation", len(data)):
            rate = jnp.exp(intercept + slope * data.x)
            numpyro.sample("y", dist.Poisson(rate), obs=data.y)

    def dims(self, data):
        one = ("observation",)
        return {"intercept": (), "slope": (), "x": one, "y": one}

    def coords(self, data):
        return {"observation": range(len(data))}

    def inputs(self, given, data):
        return jnp.asarray(given)

    def predict(self, sites, inputs, key):
        rate = jnp.exp(sites["intercept"] + sites["slope"] * inputs)
        return {"y": jax.random.poisson(key, rate)}


@pytest.fixture(scope="module")
def counts_fit(key):
    x = jnp.linspace(-1, 1, 60)
    data = Counts(x, 1.0 * jax.random.poisson(key, jnp.exp(1 + x)))
    method = pk.NUTS(num_chains=2, num_warmup=300, num_samples=300)
    return pk.fit(PoissonRegression(), data, method, key=key)


def test_importing_probkit_or_its_plots_leaves_matplotlib_alone():
    code = (
        "import sys, probkit, probkit.plots, probkit.datasets;"
        "sys.exit(any(m in sys.modules for m in ('matplotlib', 'xarray', 'pandas')))"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_every_picture_can_be_drawn_without_a_warning(nuts_fit, key):
    pictures = [
        plots.band(nuts_fit, key=key),
        plots.memberships(nuts_fit),
        plots.posterior(nuts_fit)[0],
        plots.labels(nuts_fit)[0],
        plots.objective(nuts_fit),
    ]
    for ax in pictures:
        ax.figure.canvas.draw()  # lays it out; warnings are errors
        assert ax.figure.get_axes()


# band


def test_the_interval_of_band_has_the_probability_asked_for(nuts_fit, key):
    ax = plots.band(nuts_fit, key=key, prob=0.8, num=20)
    _, at, centre = lines(ax)[0]
    new = pk.predict(nuts_fit, at[:, None], key=jax.random.key(1))
    outline = ax.collections[0].get_paths()[0].vertices
    ends = [outline[np.isclose(outline[:, 0], x), 1] for x in at]
    low, high = np.array([(end.min(), end.max()) for end in ends]).T
    y = new["y"].transpose(*SAMPLE, ...).values
    share = ((y > low) & (y < high)).mean((0, 1))
    # A share of 1,200 draws has an sd of 0.012, and the ends one of 0.006: one run in
    # thousands would fail by chance, and the keys are fixed.
    assert share == pytest.approx(np.full(20, 0.8), abs=0.06)
    assert centre == pytest.approx(new["mean"].mean(SAMPLE).values, abs=0.02)


def test_band_names_the_input_and_draws_into_the_axes_given(em_fit, key):
    _, ax = plt.subplots()
    assert plots.band(em_fit, ax, key=key) is ax
    assert ax.get_xlabel() == "x"
    assert len(plt.get_fignums()) == 1


def test_band_of_a_point_has_the_width_of_the_noise(em_fit, key):
    point = as_point(em_fit)
    outline = plots.band(point, key=key).collections[0].get_paths()[0].vertices
    left = outline[outline[:, 0] == outline[:, 0].min(), 1]
    # Far on the left all is expert 0, and a normal is 3.29 sds wide between its 5 % and
    # 95 % quantiles.
    sd = float(point.posterior["noise_sd"].sel(expert=0).squeeze())
    assert np.ptp(left) == pytest.approx(3.29 * sd, rel=0.1)


def test_points_of_a_band_have_the_colours_of_their_experts(em_fit, regimes, key):
    ax = plots.band(em_fit, key=key)
    points = next(c for c in ax.collections if len(c.get_offsets()) == len(regimes))
    leftmost = np.argmin(points.get_offsets()[:, 0])
    expected = plt.matplotlib.colors.to_rgb(style.COLOURS[0])
    assert points.get_facecolors()[leftmost, :3] == pytest.approx(expected, abs=0.1)


def test_one_of_several_inputs_must_be_chosen(two_inputs, key):
    message = "have 2; choose one of bill_length_mm, bill_depth_mm, such as `input='bill_l"
    with pytest.raises(ValueError, match=message):
        plots.band(two_inputs, key=key)
    with pytest.raises(ValueError, match="the inputs are bill_length_mm, bill_depth_mm"):
        plots.memberships(two_inputs, input="wing")


def test_the_inputs_not_chosen_stay_at_their_means(two_inputs, key):
    ax = plots.band(two_inputs, key=key, input="bill_depth_mm", num=10)
    assert ax.get_xlabel().startswith("bill_depth_mm (other inputs at their means)")
    _, at, centre = lines(ax)[0]
    length = np.full(10, np.asarray(two_inputs.data.x)[:, 0].mean())
    there = pk.predict(two_inputs, np.column_stack([length, at]), key=key)
    assert centre == pytest.approx(there["mean"].mean(SAMPLE).values)


def test_band_takes_inputs_of_one_dimension(counts_fit, key):
    ax = plots.band(counts_fit, key=key, num=30)
    assert (ax.get_xlabel(), ax.get_ylabel()) == ("x", "y")
    _, at, centre = lines(ax)[0]
    draws = counts_fit.posterior
    grid = xr.DataArray(at, dims="at")
    mean = np.exp(draws["intercept"] + draws["slope"] * grid).mean(SAMPLE).values
    # The mean of 4,096 counts has a standard error of the root of mean / 4,096.
    assert np.abs(centre - mean).max() < 5 * np.sqrt(mean.max() / 4096)
    points = np.asarray(ax.collections[1].get_offsets())
    assert points == pytest.approx(np.column_stack([counts_fit.data.x, counts_fit.data.y]))
    assert legend(ax) == ["90% interval of new y", "mean of y"]
    assert plots.band(counts_fit, key=key, input="x").get_xlabel() == "x"
    with pytest.raises(ValueError, match=r"input='time'\)`: the inputs are x\."):
        plots.band(counts_fit, key=key, input="time")


def test_the_shape_of_one_input_makes_no_difference(em_fit, key):
    x = em_fit.tree["constant_data"].to_dataset().isel(input=0)
    flat = changed(em_fit, constant_data=x)
    for draw in (lambda fitted: plots.band(fitted, key=key), plots.memberships):
        pairs = zip(lines(draw(em_fit)), lines(draw(flat)), strict=True)
        for (_, *one), (_, *other) in pairs:
            assert np.array(one) == pytest.approx(np.array(other))


def test_band_and_memberships_say_what_is_missing(em_fit, counts_fit, key):
    x = counts_fit.tree["constant_data"].to_dataset()
    y = counts_fit.tree["observed_data"].to_dataset()
    renamed = changed(counts_fit, constant_data=x.rename(x="time"))
    message = (
        r"Missing: inputs `x` of shape \(n,\) or \(n, d\); the data of this "
        r"`PoissonRegression` have `time` \(60,\), `y` \(60,\)\."
    )
    with pytest.raises(ValueError, match=message):
        plots.band(renamed, key=key)
    without = changed(counts_fit, observed_data=y.expand_dims(day=1))
    with pytest.raises(ValueError, match=r"Missing: observed outputs `y` of shape \(n,\);"):
        plots.band(without, key=key)
    shorter = changed(counts_fit, observed_data=y.isel(observation=slice(9)))
    with pytest.raises(ValueError, match="Missing: one row of `x` per value of `y`"):
        plots.band(shorter, key=key)
    strange = changed(em_fit, constant_data=None)
    with pytest.raises(ValueError, match=r"`plots\.memberships` draws y over x\. Missing"):
        plots.memberships(strange)


def test_band_refuses_predictions_that_are_not_one_per_input(counts_fit, key, monkeypatch):
    other = pk.predict(counts_fit, [0.0, 0.5], key=key).rename(y="mean")
    monkeypatch.setattr("probkit.plots.regression.predict", lambda *args, **kwargs: other)
    with pytest.raises(ValueError, match=r"returns `mean` \(2,\)\."):
        plots.band(counts_fit, key=key)


@pytest.mark.parametrize("prob", [0.0, 1.0, 90.0, float("nan")])
def test_prob_lies_between_0_and_1(em_fit, key, prob):
    with pytest.raises(ValueError, match="it must lie between 0 and 1"):
        plots.band(em_fit, key=key, prob=prob)


def test_a_grid_of_one_point_is_refused(em_fit):
    with pytest.raises(ValueError, match=r"num=1\)`: it must be at least 2"):
        plots.memberships(em_fit, num=1)


# memberships


def test_memberships_sum_to_one_everywhere(nuts_fit):
    drawn = lines(plots.memberships(nuts_fit, num=30))
    assert len(drawn) == 2
    assert sum(y for _, _, y in drawn) == pytest.approx(np.ones(30))


def test_pictures_of_labels_refuse_a_model_without_labels(counts_fit):
    message = "is for mixtures, and `PoissonRegression` has no axis of interchangeable"
    with pytest.raises(ValueError, match=message):
        plots.memberships(counts_fit)
    with pytest.raises(ValueError, match=message):
        plots.labels(counts_fit)


def test_memberships_refuse_predictions_without_memberships(em_fit, monkeypatch):
    without = pk.predict(em_fit, [[0.0]], key=jax.random.key(0)).drop_vars("membership")
    monkeypatch.setattr("probkit.plots.mixture.predict", lambda *args, **kwargs: without)
    message = r"needs `membership` from `predict`, .* returns `mean`, `y`\."
    with pytest.raises(ValueError, match=message):
        plots.memberships(em_fit)


# posterior


def test_posterior_has_one_row_per_parameter_and_one_colour_per_expert(nuts_fit):
    axes = plots.posterior(nuts_fit)
    names = [ax.get_ylabel().replace("\n", " ") for ax in axes]
    assert sorted(names) == [
        "coefficient intercept",
        "coefficient x",
        "gate intercept",
        "gate x",
        "noise_sd",
    ]
    assert legend(axes[0]) == ["expert 0", "expert 1"]
    in_memberships = [colour for colour, _, _ in lines(plots.memberships(nuts_fit))]
    for ax in axes:
        assert [c for c, _, y in lines(ax) if len(y) > 2] == in_memberships


def test_posterior_draws_quantiles_as_intervals_and_means_as_dots(nuts_fit):
    (ax,) = plots.posterior(nuts_fit, "noise_sd", prob=0.5)
    bars = [x for _, x, _ in lines(ax) if len(x) == 2]
    dots = [x for _, x, _ in lines(ax) if len(x) == 1]
    draws = nuts_fit.posterior["noise_sd"]
    expected = draws.quantile([0.25, 0.75], SAMPLE).transpose("expert", "quantile")
    assert np.array(bars) == pytest.approx(expected.values)
    assert np.ravel(dots) == pytest.approx(draws.mean(SAMPLE).values)


def test_posterior_of_a_point_is_a_line_at_it(em_fit):
    point = as_point(em_fit)
    (ax,) = plots.posterior(point, ["noise_sd"])
    drawn = sorted(x[0] for _, x, _ in lines(ax))
    assert drawn == pytest.approx(sorted(point.posterior["noise_sd"].values.ravel()))


def test_posterior_draws_variables_with_any_axes(em_fit):
    rng = np.random.default_rng(0)
    other = xr.Dataset(
        {
            "scale": (SAMPLE, rng.normal(size=(1, 200))),
            "weight": ((*SAMPLE, "a", "b"), rng.normal(size=(1, 200, 2, 2))),
        },
        coords={"a": ["low", "high"], "b": [1, 2]},
    )
    axes = plots.posterior(changed(em_fit, posterior=other))
    assert [ax.get_ylabel() for ax in axes] == [
        "scale",
        *(f"weight\n{a}, {b}" for a in ("low", "high") for b in (1, 2)),
    ]


def test_posterior_refuses_what_it_cannot_draw(em_fit, monkeypatch):
    with pytest.raises(ValueError, match="the fit has no `slope`; it has `"):
        plots.posterior(em_fit, "slope")
    with pytest.raises(ValueError, match="got 2 axes; this fit needs 1"):
        plots.posterior(em_fit, "noise_sd", ax=plt.subplots(2)[1])
    monkeypatch.setattr("probkit.plots.any.MAX_ROWS", 3)
    message = "at most 3 rows, but .*; choose fewer with `var_names=`"
    with pytest.raises(ValueError, match=message):
        plots.posterior(em_fit)


def test_colours_follow_the_axis_that_the_model_names(em_fit, monkeypatch):
    monkeypatch.setattr(moe.MixtureOfExperts, "interchangeable", "component")
    renamed = changed(em_fit, posterior=em_fit.posterior.rename(expert="component"))
    (ax,) = plots.posterior(renamed, "noise_sd")
    assert legend(ax) == ["component 0", "component 1"]
    (ax,) = plots.labels(renamed, "noise_sd")
    assert legend(ax) == ["component 0", "component 1"]


# labels


def test_labels_show_each_chain_as_it_is(nuts_fit):
    axes = plots.labels(nuts_fit, "coefficient", term="intercept")
    draws = nuts_fit.posterior["coefficient"].sel(term="intercept")
    assert len(axes) == draws.sizes["chain"]
    for chain, ax in enumerate(axes):
        for expert, (colour, _, y) in enumerate(lines(ax)):
            assert colour == to_hex(style.COLOURS[expert])
            assert (y == draws.sel(chain=chain, expert=expert).values).all()


def test_labels_refuse_what_is_not_there(nuts_fit):
    with pytest.raises(ValueError, match="the variables with an axis `expert` are"):
        plots.labels(nuts_fit, "slope")
    with pytest.raises(ValueError, match="the entries of `term` are 'intercept', 'x'"):
        plots.labels(nuts_fit, "coefficient", term="time")
    with pytest.raises(ValueError, match="has no axis `term`; its other axes: none"):
        plots.labels(nuts_fit, "noise_sd", term="x")
    alone = nuts_fit.posterior[["noise_sd"]].isel(expert=0)
    with pytest.raises(ValueError, match=r"no variable of this fit of `Mixture.* has it"):
        plots.labels(changed(nuts_fit, posterior=alone))


# objective


def test_objective_of_em_draws_every_restart_and_the_best_in_colour(em_fit):
    ax = plots.objective(em_fit)
    restarts = [line for line in lines(ax) if len(line[1]) > 1]
    assert len(restarts) == em_fit.facts["num_restarts"]
    best = [y for colour, _, y in restarts if colour == to_hex(style.COLOURS[0])]
    assert len(best) == 1
    # The trace holds the objective before each step, the fact the one after the last.
    assert best[0][-1] == pytest.approx(em_fit.facts["objective"], abs=1e-4)
    low, high = ax.get_ylim()
    assert low < em_fit.facts["objective"] < high


def test_objective_of_svi_ends_at_the_elbo(svi_fit):
    ax = plots.objective(svi_fit)
    smooth = lines(ax)[-1][2]
    assert -smooth[-1] == pytest.approx(svi_fit.facts["elbo"], abs=0.5)
    assert "ELBO" in ax.get_ylabel()


def test_objective_of_nuts_is_the_log_density_of_each_chain(nuts_fit):
    drawn = lines(plots.objective(nuts_fit))
    lp = nuts_fit.tree["sample_stats"]["lp"].values
    assert (np.array([y for _, _, y in drawn]) == lp).all()


def test_objective_refuses_a_fit_without_a_trace(em_fit):
    bare = changed(em_fit, trace=None)
    with pytest.raises(ValueError, match="this fit has none of them"):
        plots.objective(bare)


def test_reliability_draws_confidence_and_accuracy():
    # Ten queries at 0.9, of which six are right; five at 0.6, of which three are.
    p = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 5)
    y = np.array([0] * 6 + [1] * 4 + [1] * 3 + [0] * 2)
    ax = plots.reliability(p, y, num_bins=10)
    points = ax.collections[0]
    np.testing.assert_allclose(points.get_offsets(), [[0.6, 0.6], [0.9, 0.6]])
    small, large = points.get_sizes()
    assert small < large
    assert ax.get_title(loc="left") == "calibration error 0.200"
    other = plt.subplots()[1]
    assert plots.reliability(p, y, other) is other
