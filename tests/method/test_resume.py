"""A run that is killed goes on, and ends with the draws of a run that was not."""

import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
import resume_script
from resume_script import METHODS, outcome, problem, run, step_of

import probkit as pk
from probkit.method import checkpoint, loop
from probkit.method.checkpoint import Checkpoint
from probkit.models import moe
from probkit.record import UNFINISHED

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch):
    # The same as in the script: what it sets here is put back.
    monkeypatch.setattr(loop, "CHUNK_STEPS", loop.CHUNK_STEPS)
    monkeypatch.setattr(loop, "CHUNK_SECONDS", loop.CHUNK_SECONDS)
    monkeypatch.setattr(checkpoint, "SECONDS", checkpoint.SECONDS)
    resume_script.short_chunks()


def start(plan) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, resume_script.__file__, json.dumps(plan)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(plan) -> None:
    process = start(plan)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == 0, said


def kill(names, root, moment, file, step) -> None:
    """A process of its own, killed at that moment of a run. If there are several, those
    before the last are stopped there, because a process is killed once."""
    plan = {"runs": {name: (str(root / name), os.devnull) for name in names}}
    process = start({**plan, "moment": moment, "name": file, "step": step})
    if moment == "wait_to_be_killed":
        until = time.monotonic() + 300
        while _steps(root / names[-1]) < step and process.poll() is None:
            assert time.monotonic() < until
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    said, _ = process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL, said


def _steps(folder) -> int:
    return max((step_of(path) for path in folder.glob("state-*.npz")), default=-1)


# Runs that are killed over and over, and the steps they have kept after each time. NUTS
# warms up for 30 steps and then samples for 30.
KILLS = {
    ("EM",): [
        ("die_before_rename", "run.json", 0, lambda steps: steps == -1),
        ("die_in_write", "state", 12, lambda steps: 5 <= steps < 12),
    ],
    ("SVI",): [
        ("die_before_rename", "state", 25, lambda steps: 18 <= steps < 25),
    ],
    ("Gibbs", "Episodic", "Episodic, a source"): [
        ("die_before_write", "state", 12, lambda steps: 5 <= steps < 12),
    ],
    ("NUTS",): [
        ("wait_to_be_killed", "state", 12, lambda steps: 12 <= steps < 30),
        ("die_before_write", "state", 42, lambda steps: 30 < steps < 42),
    ],
}


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """`{method: (its folder, the outcome of a run never killed, of one killed, of the
    same called again after its end)}`. What is killed has a process of its own."""
    root = tmp_path_factory.mktemp("runs")

    def torment(names):
        for moment, file, step, expected in KILLS[names]:
            kill(names, root, moment, file, step)
            for name in names:
                steps = _steps(root / name)
                assert expected(steps), f"{name} has {steps} steps after {moment}"

    whole = {name: (None, str(root / f"{name}-whole.npz")) for name in METHODS}
    again = {name: (str(root / name), str(root / f"{name}.npz")) for name in METHODS}
    with ThreadPoolExecutor(2) as pool:
        # The longest first: it is what the others wait for.
        jobs = [pool.submit(torment, names) for names in reversed(KILLS)]
        for job in jobs:
            job.result()
    finish({"runs": whole, "then": again})
    return {
        name: (
            root / name,
            _read(whole[name][1]),
            _read(again[name][1]),
            _read(f"{again[name][1]}.again.npz"),
        )
        for name in METHODS
    }


def _read(path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def assert_same(one, other) -> None:
    assert one.keys() == other.keys()
    for name, array in one.items():
        assert array.dtype == other[name].dtype, name
        np.testing.assert_array_equal(array, other[name], err_msg=name)


every_method = pytest.mark.parametrize("name", METHODS)


@every_method
def test_a_killed_run_ends_with_the_same_numbers_bit_for_bit(killed, name):
    _, whole, again, _ = killed[name]
    assert any(k.startswith("posterior/") for k in whole)
    assert_same(whole, again)


@every_method
def test_a_finished_run_is_given_back_without_a_step(killed, name):
    _, whole, _, once_more = killed[name]
    assert_same(whole, once_more)


@every_method
def test_one_state_is_kept(killed, name):
    assert len(list(killed[name][0].glob("state-*.npz"))) == 1


@every_method
def test_few_files_are_kept_however_many_chunks_there_were(killed, name):
    # Joined like the digits of a binary counter; sixty steps in chunks of one to seven.
    assert 1 <= len(list(killed[name][0].glob("records-*.npz"))) <= 7


@every_method
def test_a_checkpoint_holds_flat_arrays_and_json(killed, name):
    for path in killed[name][0].iterdir():
        if path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as file:
                assert all(array.dtype.kind in "fiub" for array in file.values())
        elif not path.name.startswith(UNFINISHED):
            json.loads(path.read_text())


# In this process: interruptions that a program survives.


@pytest.fixture(scope="module")
def whole():
    """The outcome of EM, never interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHUNK_STEPS", 7)
        return outcome(run("EM", None))


@pytest.fixture(scope="module")
def finished(whole, tmp_path_factory):
    folder = tmp_path_factory.mktemp("EM") / "deep" / "down"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "CHUNK_STEPS", 7)
        assert_same(outcome(run("EM", folder)), whole)
    return folder


@pytest.fixture
def folder(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


# With files after each chunk, and with none before the interrupt.
@pytest.mark.parametrize("seconds", [0.0, 3600.0])
def test_ctrl_c_leaves_a_run_that_goes_on(whole, tmp_path, monkeypatch, seconds):
    monkeypatch.setattr(checkpoint, "SECONDS", seconds)
    add = Checkpoint.add

    def add_or_stop(self, kept, states, taken, done):
        add(self, kept, states, taken, done)
        if taken > 10:
            raise KeyboardInterrupt

    monkeypatch.setattr(Checkpoint, "add", add_or_stop)
    with pytest.raises(KeyboardInterrupt):
        run("EM", tmp_path / "run")
    monkeypatch.setattr(Checkpoint, "add", add)
    assert 10 < _steps(tmp_path / "run") < whole["trace/objective"].shape[1]
    assert_same(outcome(run("EM", tmp_path / "run")), whole)


@pytest.mark.parametrize("file", ["records-", "state-"])
def test_a_full_disk_leaves_a_run_that_goes_on(whole, tmp_path, monkeypatch, file):
    save, written = checkpoint.save_arrays, []

    def save_or_fail(path, arrays):
        written.append(path.name.startswith(file))
        if written[-1] and sum(written) > 2:
            raise OSError(28, "No space left on device")
        save(path, arrays)

    monkeypatch.setattr(checkpoint, "save_arrays", save_or_fail)
    with pytest.raises(OSError, match="No space left"):
        run("EM", tmp_path / "run")
    monkeypatch.setattr(checkpoint, "save_arrays", save)
    assert_same(outcome(run("EM", tmp_path / "run")), whole)


def test_two_runs_in_one_folder_do_each_other_no_harm(whole, tmp_path, monkeypatch):
    add, second = Checkpoint.add, []

    def add_and_let_another_pass(self, kept, states, taken, done):
        add(self, kept, states, taken, done)
        if taken > 10 and not second:
            second.append(None)
            second.append(outcome(run("EM", tmp_path / "run")))

    monkeypatch.setattr(Checkpoint, "add", add_and_let_another_pass)
    assert_same(outcome(run("EM", tmp_path / "run")), whole)
    assert_same(second[1], whole)
    monkeypatch.setattr(Checkpoint, "add", add)
    assert_same(outcome(run("EM", tmp_path / "run")), whole)


def test_files_are_written_by_time_and_at_the_end(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoint, "SECONDS", 3600.0)
    save, written = checkpoint.save_arrays, []

    def note(path, arrays):
        written.append(path.name)
        save(path, arrays)

    monkeypatch.setattr(checkpoint, "save_arrays", note)
    assert_same(outcome(run("EM", tmp_path / "run")), whole)
    assert [name.split("-")[0] for name in written] == ["records", "state"]


def test_an_empty_folder_is_taken(whole, tmp_path):
    assert_same(outcome(run("EM", tmp_path)), whole)


def test_without_a_checkpoint_nothing_is_written(whole, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert_same(outcome(run("EM", None)), whole)
    assert list(tmp_path.iterdir()) == []


# Folders that are not this run's, or not whole, get one clear line.


def refusal(folder, **changes) -> str:
    model, data = problem()
    call = {
        "model": model,
        "data": data,
        "method": METHODS["EM"],
        "key": jax.random.key(resume_script.KEY),
        **changes,
    }
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        pk.fit(**call, checkpoint=folder)
    assert type(caught.value) is ValueError
    message = str(caught.value)
    assert message.startswith(f"`checkpoint={str(folder)!r}`")
    return message


def other_data(**changes):
    _, data = problem()
    return moe.Pairs(**{"x": data.x, "y": data.y, **changes})


OTHER = {
    "key": lambda: {"key": jax.random.key(resume_script.KEY + 1)},
    "model": lambda: {"model": moe.MixtureOfExperts(num_experts=3)},
    "a setting of the model": lambda: {"model": moe.MixtureOfExperts(2, moe.Softmax(2.0))},
    "a setting of the method": lambda: {"method": pk.EM(num_restarts=2, atol=1e-5)},
    "data": lambda: {"data": other_data(x=np.asarray(problem()[1].x) + 1e-9)},
    "data of other names": lambda: {"data": other_data(inputs="speed")},
    "data of another precision": lambda: {"data": other_data(x=np.float32(problem()[1].x))},
    "data in other units": lambda: {
        "data": other_data(units=other_data(y=range(40)).units)
    },
}


@pytest.mark.parametrize("changes", OTHER.values(), ids=OTHER.keys())
def test_a_folder_of_another_run_is_refused(folder, changes):
    changed = changes()
    assert f"holds another run: its {next(iter(changed))} differs" in refusal(
        folder, **changed
    )


def test_all_that_differs_is_named(folder):
    message = refusal(folder, key=jax.random.key(0), data=other_data(inputs="speed"))
    assert "its data, key differ. Name another folder, or remove this one." in message


def test_a_run_from_another_start_is_refused(folder):
    begin = run("EM", None)
    assert "holds another run: its start differs" in refusal(folder, start=begin)


def test_a_run_of_another_method_is_refused(folder):
    assert "holds another run: its method" in refusal(folder, method=METHODS["SVI"])


def test_optimisers_of_one_kind_are_told_apart(tmp_path):
    model, data = problem()
    first, second = (pk.SVI(optimizer=optax.adam(rate)) for rate in (0.1, 0.01))
    like = {"start": None, "key": jax.random.key(0), "lanes": 1}
    both = dict(model=model, data=data, **like)
    Checkpoint.open(tmp_path, None, method=first, **both)
    Checkpoint.open(tmp_path, None, method=pk.SVI(optimizer=optax.adam(0.1)), **both)
    with pytest.raises(ValueError, match="holds another run: its method differs"):
        Checkpoint.open(tmp_path, None, method=second, **both)


def test_a_folder_with_other_files_is_refused_and_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("important")
    assert "exists and holds no run of probkit" in refusal(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_file_is_no_folder(tmp_path):
    path = tmp_path / "thesis.tex"
    path.write_text("important")
    assert "exists and holds no run of probkit" in refusal(path)
    assert path.read_text() == "important"


def truncate(path):
    path.write_bytes(path.read_bytes()[:-100])


def flip(path):
    # Within an array. What lies between arrays, such as a time stamp, nobody reads.
    content = bytearray(path.read_bytes())
    content[content.index(b"\x93NUMPY") + 8] ^= 1
    path.write_bytes(content)


def other_shapes(path):
    arrays = _read(path)
    np.savez(path, **{k: v[..., None] for k, v in arrays.items()})


def fewer_arrays(path):
    arrays = _read(path)
    np.savez(path, **{k: arrays[k] for k in list(arrays)[1:]})


def bare_array(path):
    with path.open("wb") as file:
        np.save(file, np.arange(3))


class Bomb:
    def __reduce__(self):
        return pytest.fail, ("unpickled",)


def pickled(path):
    np.savez(path, **{**_read(path), "counts": np.array([Bomb()])})


DAMAGE = {
    "truncated": truncate,
    "a changed byte": flip,
    "empty": lambda path: path.write_bytes(b""),
    "a text": lambda path: path.write_text("hello"),
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Bomb())),
    "an array": bare_array,
}
STATE = {"of other shapes": other_shapes, "of fewer arrays": fewer_arrays}
RECORDS = {"lost": Path.unlink, "with a pickle": pickled}


@pytest.mark.parametrize(
    "which, damage",
    [("state", d) for d in (DAMAGE | STATE).values()]
    + [("records", d) for d in (DAMAGE | RECORDS).values()],
    ids=[f"state {k}" for k in DAMAGE | STATE] + [f"records {k}" for k in DAMAGE | RECORDS],
)
def test_a_damaged_file_is_named(folder, which, damage):
    path = sorted(folder.glob(f"{which}-*.npz"))[0]
    damage(path)
    assert f"`{path.name}` in it is damaged; remove the folder" in refusal(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", "{}", '{"key": 1}'])
def test_a_damaged_description_is_named(folder, text):
    (folder / "run.json").write_text(text)
    assert "`run.json` in it is damaged; remove the folder" in refusal(folder)
