"""`python -m probkit`, as a user calls it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import probkit as pk
from probkit.__main__ import main

ROOT = Path(__file__).parents[1]
CACHE = ROOT / ".jax-cache"


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))
    return subprocess.run(
        [sys.executable, "-m", "probkit", *arguments],
        capture_output=True,
        text=True,
        timeout=600,
        env=os.environ | {"PYTHONPATH": path} | environment,
    )


def test_help_names_the_commands(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "demo" in text
    assert "info" in text
    assert "reproduce" in text


@pytest.mark.parametrize("arguments", [[], ["dance"], ["demo", "--loud"], ["reproduce"]])
def test_an_invalid_command_exits_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert "usage: python -m probkit" in capsys.readouterr().err


def test_a_file_in_place_of_the_folder_is_one_line_of_error(tmp_path, capsys):
    file = tmp_path / "taken"
    file.write_text("")
    assert main(["demo", "--out", str(file)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "is a file; name a folder" in error


def test_info_prints_versions_devices_and_the_cache(tmp_path):
    flags = "--xla_force_host_platform_device_count=3"
    done = run("info", "--cache", str(tmp_path), XLA_FLAGS=flags)
    assert done.returncode == 0, done.stderr
    rows = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert rows["jax"] == pk.record.versions()["jax"]
    assert rows["devices"].count("cpu") == 3
    assert rows["cache"].startswith(str(tmp_path))
    assert rows["precision"].startswith("float32")


def test_quick_demo_leaves_fits_and_pictures(tmp_path):
    out = tmp_path / "demo"
    done = run("demo", "--quick", "--out", str(out), "--cache", str(CACHE))
    assert done.returncode == 0, done.stderr
    assert str(out) in done.stdout
    for table in (
        "MixtureOfExperts by EM",
        "MixtureOfExperts by SVI",
        "MixtureOfExperts by NUTS",
    ):
        assert table in done.stdout
    assert "coefficient[time, expert 3]" in done.stdout
    assert {file.suffix for file in out.iterdir()} == {".nc", ".png"}
    assert all(file.stat().st_size > 10_000 for file in out.glob("*.png"))
    again = pk.load(out / "em.nc")
    assert again.result == "successful"
    assert again.model.num_experts == 4


def test_reproduce_prints_the_published_error_and_ours_below_it(capsys):
    assert main(["reproduce", "gphm", "--only", "u1", "--kernel", "GM"]) == 0
    text = capsys.readouterr().out
    assert "closed form" in text  # the difference from the paper
    (row,) = [line.split() for line in text.splitlines() if line.startswith("u1 ")]
    _, kernel, published, ours, coverage, ratio, *_ = row
    assert (kernel, published) == ("GM", "4.0e-07")
    assert float(ours) < float(published)
    assert float(coverage) > 0.8
    assert float(ratio) > 1


@pytest.mark.parametrize("only", ["u9", "u1,u9", ","])
def test_a_problem_that_no_paper_has_is_one_line_of_error(only, capsys):
    assert main(["reproduce", "gphm", "--only", only]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "the problems are u1, u2" in error


def test_tables_without_data_are_named_in_a_line(capsys):
    assert main(["reproduce", "funbat", "--only", "pm25,us_temp"]) == 0
    (line,) = [
        one for one in capsys.readouterr().out.splitlines() if one.startswith("not run")
    ]
    assert "pm25, us_temp" in line
    assert "`beijing_daily.npz` and `us_temp.npz` (no `--data`)" in line


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["funbat", "--kernel", "GM"], "`funbat` has no `--kernel`"),
        (["gphm", "--data", "."], "`gphm` has no `--data`"),
        (["funbat", "--data", "no/such/folder"], "is not a folder"),
        (["funbat", "--only", "u1"], "the tables are surface"),
    ],
)
def test_an_option_of_another_paper_is_one_line_of_error(arguments, words, capsys):
    assert main(["reproduce", *arguments]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert words in error
