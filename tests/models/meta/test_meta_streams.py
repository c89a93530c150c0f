"""Streams: memory does not grow, and devices may share the episodes of a step."""

import gc
import re

import jax
import jax.numpy as jnp
import numpy as np

import probkit as pk
from doors import refused
from probkit.method import loop
from probkit.models import meta

KEY = jax.random.key(0)
# Two devices do not divide the episodes of a step: each has four, and one is filled up.
SIZE, SHARE = 7, 4
SOURCE = meta.SineLine(KEY, batch_size=SIZE)


def fitted(devices, num_steps=40):
    method = meta.Episodic(devices=devices, max_steps=num_steps, patience=99, num_draws=2)
    return pk.fit(meta.Linear(), SOURCE, method, key=KEY, throw=False)


def test_a_longer_stream_leaves_nothing_in_memory():
    def held(num_steps):
        fit = fitted(1, num_steps)
        gc.collect()
        sizes = [array.nbytes for array in jax.live_arrays()]
        assert fit.tree["trace"]["objective"].shape == (1, num_steps)
        return len(sizes), sum(sizes)

    held(5)  # what the first fit of a process keeps, such as constants of programs
    assert held(40) == held(10)


def test_devices_share_the_episodes_and_find_the_same(monkeypatch):
    calls, advance = [], loop.advance_lanes

    def noted(*args):
        calls.append(args)
        return advance(*args)

    monkeypatch.setattr(loop, "advance_lanes", noted)
    one, two = (jax.tree.leaves(fitted(n).approximation) for n in (1, 2))
    for ours, theirs in zip(one, two, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)
    program = advance.lower(*calls[-1]).compile().compiled.as_text()
    lengths = {int(n) for n in re.findall(r"= f64\[(\d+)[,\]]", program)}
    assert "num_partitions=2" in program and "all-reduce" in program
    assert SHARE in lengths and SIZE not in lengths


def test_more_devices_than_there_are():
    refused(lambda: fitted(64), r"devices=64\)`: there are 2 here; .*host_device_count")


def test_on_a_cpu_devices_do_not_wait_for_threads_of_each_other():
    # Two covariances of 24 coefficients are factored at the same time.
    waves = lambda x: jnp.sin(x * jnp.arange(1, 25))  # noqa: E731
    model = meta.Linear(num_components=2, features=waves)
    method = meta.Episodic(devices=2)
    refused(
        lambda: pk.fit(model, SOURCE, method, key=KEY),
        r"devices=2\)`: on a CPU, .*\(`cholesky`\).* leave `devices` at 1",
    )
