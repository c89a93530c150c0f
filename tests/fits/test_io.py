"""Fits on disk: what goes out comes back, and nothing else gets in."""

import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace

import equinox as eqx
import h5py
import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
import optax
import pytest
import xarray as xr
from jaxtyping import Array, Float
from numpyro.infer import autoguide

import probkit as pk
from probkit.method import RESULTS, AbstractMethod, Draws
from probkit.model import AbstractData, AbstractModel
from probkit.model.density import prior_draw
from probkit.models import moe
from probkit.record import UNFINISHED

ONE_LINE = r"\A[^\n]+\Z"
FITS = ("em_fit", "svi_fit", "nuts_fit")


@pytest.fixture(scope="module", params=FITS)
def there_and_back(request, tmp_path_factory):
    fitted = request.getfixturevalue(request.param)
    path = pk.save(fitted, tmp_path_factory.mktemp("fits") / "fit.nc")
    return fitted, pk.load(path)


@pytest.fixture
def saved(em_fit, tmp_path):
    return pk.save(em_fit, tmp_path / "fit.nc")


def refusal(path, **options) -> str:
    """What `load` says of a file that it refuses: one line that names the file."""
    with pytest.raises(ValueError, match=ONE_LINE) as caught:
        pk.load(path, **options)
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert message.startswith("`load`: ") and f"`{path}`" in message
    return message


def change_record(path, change):
    """Rewrite the record of a saved fit as `change` makes it."""
    with h5py.File(path, "a") as file:
        record = json.loads(file.attrs["probkit"])
        changed = change(record)
        record = record if changed is None else changed
        file.attrs["probkit"] = json.dumps(record)


# What goes out comes back.


def test_every_part_of_a_fit_comes_back_equal(there_and_back):
    fitted, again = there_and_back
    assert again.tree.identical(fitted.tree)
    assert again.model == fitted.model
    assert again.method == fitted.method
    assert eqx.tree_equal(again.data, fitted.data, typematch=True)
    assert again.result == fitted.result
    np.testing.assert_equal(dict(again.facts), dict(fitted.facts))
    assert again.record == fitted.record
    assert repr(again) == repr(fitted)


def test_every_array_keeps_its_dtype(there_and_back):
    fitted, again = there_and_back
    for group in fitted.tree.subtree:
        for name, array in group.data_vars.items():
            assert again.tree[group.path][name].dtype == array.dtype, name


def test_a_loaded_fit_predicts_the_same_numbers(there_and_back):
    fitted, again = there_and_back
    x, key = np.linspace(-2, 2, 5), jax.random.key(0)
    assert pk.predict(again, x, key=key).equals(pk.predict(fitted, x, key=key))


def test_a_loaded_fit_is_diagnosed_the_same(there_and_back):
    fitted, again = there_and_back
    assert str(pk.diagnose(again)) == str(pk.diagnose(fitted))


def test_a_loaded_fit_saves_to_an_equal_file(there_and_back, tmp_path):
    fitted, again = there_and_back
    third = pk.load(pk.save(again, tmp_path / "again.nc"))
    assert third.tree.identical(fitted.tree) and third.method == fitted.method


def test_saving_changes_nothing_in_the_fit(em_fit, tmp_path):
    before = em_fit.tree.copy(deep=True)
    pk.save(em_fit, tmp_path / "fit.nc")
    assert em_fit.tree.identical(before)


def test_a_path_may_be_text(em_fit, tmp_path):
    path = pk.save(em_fit, str(tmp_path / "fit.nc"))
    assert pk.load(str(path)).tree.identical(em_fit.tree)


def test_arviz_reads_the_file_without_probkit(saved, em_fit):
    with xr.open_datatree(saved, engine="h5netcdf") as tree:
        assert tree["posterior"].to_dataset().identical(em_fit.posterior)


class Fixed(AbstractMethod):
    """Draws from the prior, without a look at the data: a method of the user's own."""

    def run(self, model, data, key, start, running):
        dtype = jnp.result_type(*jax.tree.leaves(data))

        @jax.jit
        def draw(key):
            return jax.tree.map(lambda a: a.astype(dtype), prior_draw(model, data, key))

        draws = [[draw(key) for key in keys] for keys in jax.random.split(key, (2, 3))]
        chains = [jax.tree.map(lambda *a: jnp.stack(a), *chain) for chain in draws]
        sites = jax.tree.map(lambda *a: jnp.stack(a), *chains)
        return Draws(jax.device_get(sites), {}, {}, RESULTS.successful)

    def checks(self, tree, facts):
        return ()


def test_a_fit_in_float32_stays_in_float32(tmp_path):
    x = np.linspace(0, 1, 20, dtype=np.float32)
    data = moe.Pairs(x, x**2)
    model = moe.MixtureOfExperts(num_experts=2)
    key = jax.random.key(0)
    fitted = pk.fit(model, data, Fixed(), key=key, relabel=False)
    again = pk.load(pk.save(fitted, tmp_path / "fit.nc"))
    assert eqx.tree_equal(again.data, data, typematch=True)
    assert all(a.dtype == np.float32 for a in jax.tree.leaves(again.data))
    assert again.tree.identical(fitted.tree)
    assert {v.dtype for v in again.posterior.values()} == {np.dtype("float32")}
    new = pk.predict(again, x, key=key)
    assert new["mean"].dtype == new["membership"].dtype == np.float32


def test_units_given_by_hand_and_names_come_back(tmp_path):
    rng = np.random.default_rng(0)
    wide = moe.Pairs(rng.normal(0, 9, (30, 2)), rng.normal(0, 9, 30))
    x, y = rng.normal(size=(20, 2)), rng.normal(size=20)
    data = moe.Pairs(x, y, inputs=["größe", "age (years)"], units=wide.units)
    fitted = pk.fit(
        moe.MixtureOfExperts(2), data, Fixed(), key=jax.random.key(0), relabel=False
    )
    again = pk.load(pk.save(fitted, tmp_path / "fit.nc"))
    assert eqx.tree_equal(again.data, data, typematch=True)
    assert list(again.posterior["term"].values) == ["intercept", "größe", "age (years)"]


class Points(AbstractData):
    value: Float[Array, " n"]
    place: str = eqx.field(static=True)

    def __len__(self):
        return len(self.value)

    def take(self, indices):
        return Points(self.value[indices], self.place)

    @classmethod
    def restore(cls, arrays, fields):
        return cls(jnp.asarray(arrays["value"]), fields["place"])


class Level(AbstractModel):
    """A level and its noise: a family that probkit does not know."""

    scale: float = 3.0

    def __call__(self, data):
        level = numpyro.sample("level", dist.Normal(0.0, self.scale))
        with numpyro.plate("observation", len(data)):
            numpyro.sample("value", dist.Normal(level, 1.0), obs=data.value)

    def dims(self, data):
        return {"value": ("observation",)}

    def coords(self, data):
        return {"observation": np.arange(len(data))}

    def inputs(self, given, data):
        return jnp.zeros(given)

    def predict(self, sites, inputs, key):
        return {"value": sites["level"] + inputs}


MINE = {"test_io.Level": Level, "test_io.Points": Points}


@pytest.fixture
def mine(tmp_path):
    model, data = Level(scale=2.0), Points(jnp.arange(4.0), "Bern")
    fitted = pk.fit(model, data, Fixed(), key=jax.random.key(0))
    return fitted, pk.save(fitted, tmp_path / "mine.nc")


def test_a_family_of_ones_own_comes_back_when_its_classes_are_given(mine):
    fitted, path = mine
    again = pk.load(path, families=MINE)
    assert again.model == fitted.model
    assert eqx.tree_equal(again.data, fitted.data)
    assert again.tree.identical(fitted.tree)
    assert pk.predict(again, 3, key=jax.random.key(0))["value"].shape == (2, 3, 3)


@pytest.mark.parametrize("given", [None, {}, {"test_io.Level": Level}])
def test_a_family_of_ones_own_is_asked_for(mine, given):
    _, path = mine
    message = refusal(path, families=given)
    missing = "test_io.Points" if given else "test_io.Level"
    assert f"`{missing}` is no family of probkit's" in message
    assert f"families=[{missing.rpartition('.')[2]}]" in message


def test_a_class_of_the_wrong_kind_is_refused(mine):
    _, path = mine
    message = refusal(path, families={**MINE, "test_io.Level": dict})
    assert "`test_io.Level` is no `AbstractModel`" in message


def test_a_method_of_ones_own_is_restored_when_its_class_is_given(mine):
    fitted, path = mine
    again = pk.load(path, families=[Level, Points, Fixed])
    assert again.method == fitted.method
    assert [c.name for c in pk.diagnose(again)] == [c.name for c in pk.diagnose(fitted)]


def test_a_method_of_ones_own_is_not_guessed(mine):
    _, path = mine
    again = pk.load(path, families=MINE)
    assert again.method is None
    with pytest.raises(ValueError, match=r"`diagnose`: the method .* `az.summary"):
        pk.diagnose(again)


# Models that hold arrays, modules and functions.


class Knots(AbstractModel):
    """A mean by arrays: what holds no module needs no model to be loaded."""

    weight: Float[Array, " k"]
    factor: float = 2.0

    def __call__(self, data):
        level = numpyro.sample("level", dist.Normal(0.0, 3.0))
        with numpyro.plate("observation", len(data)):
            mean = level + self.factor * self.weight.sum()
            numpyro.sample("value", dist.Normal(mean, 1.0), obs=data.value)


class Net(AbstractModel):
    """A mean by a network, with a function and a tuple of arrays."""

    net: eqx.nn.MLP
    link: Callable
    more: tuple[Array, ...]

    def __call__(self, data):
        level = numpyro.sample("level", dist.Normal(0.0, 3.0))
        with numpyro.plate("observation", len(data)):
            mean = self.link(jax.vmap(self.net)(data.value[:, None])[:, 0])
            mean = level + mean + sum(part.sum() for part in self.more)
            numpyro.sample("value", dist.Normal(mean, 1.0), obs=data.value)


def net(seed=0, width=4, link=jnp.tanh):
    mlp = eqx.nn.MLP(1, 1, width, 2, key=jax.random.key(seed))
    return Net(mlp, link, (jnp.arange(3.0) + seed, jnp.ones((2, 2)) * seed))


POINTS = Points(jnp.arange(4.0), "Bern")


def test_arrays_of_a_model_are_saved_and_loaded(tmp_path):
    model = Knots(jnp.array([0.1, 0.2, 0.7]))
    fitted = pk.fit(model, POINTS, Fixed(), key=jax.random.key(0))
    again = pk.load(pk.save(fitted, tmp_path / "fit.nc"), families=[Knots, Points])
    assert eqx.tree_equal(again.model, model)
    assert again.tree.identical(fitted.tree)


def test_a_network_is_saved_and_loaded_into_a_model_built_the_same_way(tmp_path):
    fitted = pk.fit(net(), POINTS, Fixed(), key=jax.random.key(0))
    path = pk.save(fitted, tmp_path / "fit.nc")
    again = pk.load(path, families=[Points], model=net(seed=9))
    assert eqx.tree_equal(again.model, fitted.model)
    before = pk.with_log_likelihood(fitted).tree["log_likelihood"]
    assert pk.with_log_likelihood(again).tree["log_likelihood"].equals(before)


def test_a_network_is_asked_for(tmp_path):
    fitted = pk.fit(net(), POINTS, Fixed(), key=jax.random.key(0))
    path = pk.save(fitted, tmp_path / "fit.nc")
    assert "build the model as it was built then" in refusal(path, families=[Net, Points])
    for other, words in (
        (net(width=5), r"`load(model=Net(...))` differs in net"),
        (net(link=jnp.sin), r"`load(model=Net(...))` differs in link"),
        (Level(), "`load(model=...)` is a `Level`, not `test_io.Net`"),
    ):
        assert words in refusal(path, families=[Points], model=other)


class Forgetful(Points):
    """Data that do not come back: a list of names is lost."""

    @classmethod
    def restore(cls, arrays, fields):
        return cls(jnp.asarray(arrays["value"]), "nowhere")


def test_data_that_would_not_come_back_are_not_saved(tmp_path):
    data = Forgetful(jnp.arange(4.0), "Bern")
    fitted = pk.fit(Level(), data, Fixed(), key=jax.random.key(0))
    with pytest.raises(ValueError, match=r"`save`: `Forgetful.restore` does not give the"):
        pk.save(fitted, tmp_path / "fit.nc")
    assert not (tmp_path / "fit.nc").exists()


@pytest.mark.parametrize(
    "method",
    [pk.SVI(guide=autoguide.AutoNormal), pk.SVI(optimizer=optax.adam(0.1))],
    ids=["guide", "optimizer"],
)
def test_a_method_with_a_function_of_ones_own_is_not_guessed(em_fit, tmp_path, method):
    path = pk.save(replace(em_fit, method=method), tmp_path / "fit.nc")
    assert pk.load(path).method is None


# A file appears whole, or not at all.


@pytest.mark.parametrize("step", ["fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file(saved, svi_fit, monkeypatch, step, error):
    before = saved.read_bytes()

    def fail(*_):
        unfinished = list(saved.parent.glob(f"{UNFINISHED}*"))
        assert len(unfinished) == 1 and unfinished[0].stat().st_size > 0
        raise error

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(type(error)):
        pk.save(svi_fit, saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_a_tree_that_cannot_be_written_leaves_no_file(em_fit, tmp_path):
    tree = em_fit.tree.copy()
    tree.attrs = {**tree.attrs, "object": {1: object()}}
    with pytest.raises((TypeError, ValueError)):
        pk.save(replace(em_fit, tree=tree), tmp_path / "fit.nc")
    assert os.listdir(tmp_path) == []


def test_others_may_read_the_file_as_far_as_the_umask_allows(em_fit, tmp_path):
    path = pk.save(em_fit, tmp_path / "fit.nc")
    (tmp_path / "plain").touch()
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


# What is in the file, and what may not come in.


def test_the_file_holds_numbers_and_text_only(saved):
    def look(name, item):
        if isinstance(item, h5py.Dataset):
            text = h5py.check_string_dtype(item.dtype) is not None
            assert text or item.dtype.kind in "fiub", name

    with h5py.File(saved) as file:
        file.visititems(look)
        record = file.attrs["probkit"]
    assert isinstance(record, str)
    assert set(json.loads(record)) == {
        "format",
        "model",
        "data",
        "method",
        "approximation",
        "result",
        "facts",
        "record",
    }


@pytest.mark.parametrize("part", ["model", "data"])
@pytest.mark.parametrize(
    "name", ["os.system", "subprocess.Popen", "this.s", "moe.Units", "moe.os", "eval", ""]
)
def test_a_record_cannot_name_a_class_of_its_choice(saved, monkeypatch, part, name):
    def change(record):
        record[part] = {"class": name, "fields": {"command": "exit 1"}}

    change_record(saved, change)
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("executed"))
    assert f"`{name}` is no family of probkit's" in refusal(saved)
    assert "this" not in sys.modules, "imported what a file named"


@pytest.mark.parametrize("name", ["os.system", "test_io.Fixed", "em.EMState"])
def test_a_method_that_is_not_known_is_not_looked_for(saved, name):
    def change(record):
        record["method"]["class"] = name

    change_record(saved, change)
    assert pk.load(saved).method is None


# A file that is not whole, or not ours, gets one clear line.


@pytest.mark.parametrize("kept", [0, 1, 8, 100, 0.01, 0.25, 0.5, 0.75, 0.99, -1])
def test_a_truncated_file_is_refused(saved, kept):
    whole = saved.read_bytes()
    length = int(kept * len(whole)) if isinstance(kept, float) else kept
    saved.write_bytes(whole[:length])
    assert "is damaged or no netCDF file (" in refusal(saved)


def test_a_changed_byte_among_the_draws_is_noticed(saved, em_fit):
    content = bytearray(saved.read_bytes())
    some = em_fit.posterior["noise_sd"].values[0, 17, 0].tobytes()
    assert content.count(some) == 1
    content[content.index(some) + 3] ^= 1
    saved.write_bytes(content)
    assert "is damaged or no netCDF file (" in refusal(saved)


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\1\0\0\0\1\x08\0\0\0\0:~\x9bU" + b"\0" * 99


@pytest.mark.parametrize(
    "content",
    [PNG, b"x,y\n1,2\n", b"\x80\x04K\x01.", b"CDF\x01\0\0\0\0" + b"\0" * 24],
    ids=["picture", "text", "pickle", "netCDF-3"],
)
def test_a_file_of_another_kind_is_refused(tmp_path, content):
    path = tmp_path / "fit.nc"
    path.write_bytes(content)
    assert "is damaged or no netCDF file (" in refusal(path)


def test_a_folder_is_refused(tmp_path):
    assert "is damaged or no netCDF file (" in refusal(tmp_path)


def test_netcdf_of_another_program_is_refused(tmp_path):
    path = tmp_path / "rain.nc"
    xr.Dataset({"rain": ("day", np.arange(3.0))}).to_netcdf(path, engine="h5netcdf")
    assert "was not written by probkit; read it with `az.from_netcdf`" in refusal(path)


def test_a_file_of_a_newer_probkit_says_so(saved):
    change_record(saved, lambda record: record.update(format=99))
    message = refusal(saved)
    assert "has format 99, of a newer probkit" in message and "Upgrade" in message


def drop(_) -> None:
    """Says of a change that it was made in place."""


DAMAGE = {
    "no record": (lambda r: [], "is damaged"),
    "no format": (lambda r: drop(r.pop("format")), "is damaged"),
    "format of text": (lambda r: r.update(format="new"), "is damaged"),
    "format zero": (lambda r: r.update(format=0), "is damaged"),
    "no model": (lambda r: drop(r.pop("model")), "lacks 'model'"),
    "no fields": (lambda r: drop(r["model"].pop("fields")), "lacks 'fields'"),
    "fields of a list": (lambda r: r["model"].update(fields=[1]), "is not right ("),
    "an unknown field": (
        lambda r: r["model"]["fields"].update(colour=1),
        "`MixtureOfExperts` has no field colour",
    ),
    "a wrong setting": (
        lambda r: r["model"]["fields"].update(num_experts=-1),
        "num_experts",
    ),
    "a lost field": (
        lambda r: drop(r["model"]["fields"].pop("num_experts")),
        "num_experts",
    ),
    "another model": (
        lambda r: r["model"]["fields"].update(num_experts=3),
        "has the shape (2, 2), where the model has (2, 3)",
    ),
    "data for a model": (lambda r: r.update(model=r["data"]), "no `AbstractModel`"),
    "a model for data": (lambda r: r.update(data=r["model"]), "no `AbstractData`"),
    "lost units": (lambda r: drop(r["data"]["fields"].pop("units")), "lacks 'units'"),
    "units of text": (lambda r: r["data"]["fields"].update(units="m"), "is not right ("),
    "wrong names": (lambda r: r["data"]["fields"].update(inputs=["a", "b"]), "inputs"),
    "an unknown result": (lambda r: r.update(result="perfect"), "'perfect' is no item"),
    "facts of text": (lambda r: r.update(facts="none"), "is not right ("),
    "a method of text": (lambda r: r.update(method="EM"), "is not right ("),
}


@pytest.mark.parametrize("change, words", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_changed_record_is_refused(saved, change, words):
    change_record(saved, change)
    assert words in refusal(saved)


@pytest.mark.parametrize("text", ["{", "", "null", "[" * 100_000])
def test_a_record_that_is_no_json_is_refused(saved, text):
    with h5py.File(saved, "a") as file:
        # What is long is no attribute to HDF5; a record is kept whatever its length.
        file.attrs["probkit"] = text[:60_000]
    assert "the record in" in refusal(saved) and "is damaged" in refusal(saved)


@pytest.mark.parametrize(
    "group, words", [("posterior", "no posterior"), ("observed_data", "lacks 'y'")]
)
def test_a_file_without_one_of_its_groups_is_refused(saved, group, words):
    with h5py.File(saved, "a") as file:
        del file[group]
    assert words in refusal(saved)


def test_a_missing_file_is_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=ONE_LINE) as caught:
        pk.load(tmp_path / "none.nc")
    assert str(caught.value) == f"`load`: there is no file `{tmp_path / 'none.nc'}`."


def test_a_missing_folder_is_not_made(em_fit, tmp_path):
    path = tmp_path / "results" / "fit.nc"
    with pytest.raises(ValueError, match=r"`save`: there is no folder .* make it first"):
        pk.save(em_fit, path)
    assert not path.parent.exists()
