"""Problems with known answers: that the scores are right, and the command prints them."""

import numpy as np
import pytest
from scipy import stats

from doors import refused
from probkit.__main__ import main
from probkit.models.meta.niwmeta import sineline, table


def test_lines_are_those_of_the_known_answers():
    data = table.lines_data()
    # The sums by which the random numbers were recorded.
    assert float(data.y.sum()) == pytest.approx(115.315075, abs=1e-6)
    assert float(data.x.sum()) == pytest.approx(14.471777, abs=1e-6)


def test_a_fit_of_lines_has_the_known_answers():
    ours, known = table.lines(), table.BY_HAND
    np.testing.assert_allclose(ours.mean, known.mean, atol=1e-5)
    np.testing.assert_allclose(ours.scale, known.scale, atol=1e-5)
    assert ours.elbo == pytest.approx(known.elbo, abs=1e-5)
    assert ours.elbo < table.LOG_EVIDENCE
    np.testing.assert_allclose(ours.at_new, known.at_new, atol=1e-3)
    # Of 4,000 draws with a variance of 0.29, within four standard errors.
    np.testing.assert_allclose(ours.drawn, known.drawn, atol=0.035)


def test_scores_are_those_of_a_mixture_of_normals():
    weight = np.array([0.3, 0.7])
    mean, variance = np.array([[[0.0, 2.0]]]), np.array([[[1.0, 0.25]]])
    y = np.array([[1.8]])
    found = sineline.scores(y, weight, mean, variance)
    each = stats.norm(mean[0, 0], np.sqrt(variance[0, 0]))
    assert found["nll"][0] == pytest.approx(-np.log(weight @ each.pdf(1.8)))
    assert found["mse"][0] == pytest.approx((1.8 - 1.4) ** 2)
    assert found["cover90"][0] == 1.0
    assert sineline.scores(y + 5, weight, mean, variance)["cover90"][0] == 0.0


def test_the_best_predictor_has_the_calibration_that_it_should():
    tasks = sineline.held_out(5, 60)
    assert tasks.x.shape == (60, 45)
    best = sineline.summary(sineline.bayes_optimal(tasks, num=60))
    none = sineline.summary(sineline.no_adaptation(tasks, sineline.training(5, 200)))
    # Of 2,700 values in 60 tasks; the noise alone has 0.09.
    assert 0.09 < best["mse"] < 0.5
    assert abs(best["cover90"] - 0.9) < 0.03
    assert best["nll"] < 1.0 < none["nll"]


def test_known_points_belong_to_the_task():
    tasks = sineline.held_out(10, 3)
    x = np.sort(np.concatenate([tasks.support_x, tasks.x], 1))
    np.testing.assert_allclose(x, np.tile(np.linspace(-5, 5, 50), (3, 1)), atol=1e-6)


def test_a_process_predicts_as_the_dense_formula():
    tasks = sineline.held_out(5, 2)
    data = sineline.training(5, 50)
    found = sineline.gaussian_process(tasks, data)
    x, y = np.asarray(data.x[..., 0]), np.asarray(data.y)
    grid = [
        (
            sum(
                stats.multivariate_normal(
                    cov=sd**2 * np.exp(-(((a[:, None] - a) / length) ** 2) / 2)
                    + 0.09 * np.eye(5)
                ).logpdf(b)
                for a, b in zip(x, y, strict=True)
            ),
            length,
            sd,
        )
        for length in np.geomspace(0.5, 10, 16)
        for sd in np.geomspace(1, 30, 16)
    ]
    _, length, sd = max(grid)

    def kernel(a, b):
        return sd**2 * np.exp(-(((a[:, None] - b) / length) ** 2) / 2)

    known, new = tasks.support_x[0], tasks.x[0]
    C = kernel(known, known) + 0.09 * np.eye(5)
    mean = kernel(new, known) @ np.linalg.solve(C, tasks.support_y[0])
    spread = kernel(new, new) - kernel(new, known) @ np.linalg.solve(C, kernel(known, new))
    density = stats.norm(mean, np.sqrt(np.diag(spread) + 0.09))
    assert found["nll"][0] == pytest.approx(-density.logpdf(tasks.y[0]).mean(), rel=1e-6)


def test_other_problems_and_options_are_refused(capsys):
    refused(lambda: table.chosen("3-shot", False), "problems are linear, 5-shot, 10-shot")
    assert table.chosen(None, True) == ("linear", "5-shot")
    assert table.chosen("10-shot", True) == ("10-shot",)
    assert main(["reproduce", "niwmeta", "--kernel", "GM"]) == 1
    assert "`niwmeta` has no `--kernel`" in capsys.readouterr().err


def test_the_command_prints_known_answers_beside_ours(capsys, monkeypatch):
    # A fit of its own is above; here the table only.
    monkeypatch.setattr(table, "lines", lambda: table.BY_HAND)
    assert main(["reproduce", "niwmeta", "--only", "linear"]) == 0
    said = capsys.readouterr().out
    row = next(line for line in said.splitlines() if line.startswith("ELBO"))
    assert row.split()[-2:] == ["-79.98551", "-79.98551"]
    assert "no figure of it is quoted" in said


def test_a_row_has_what_is_known_and_what_is_reached():
    each = {"mse": np.array([0.1, 0.3]), "nll": np.ones(2), "cover90": np.ones(2)}
    assert table.row("5-shot", "Bayes-optimal", each).split() == [
        "Bayes-optimal",
        *("0.200", "0.438", "0.890"),
        *("0.200", "0.139", "1.000", "1.000"),
    ]
