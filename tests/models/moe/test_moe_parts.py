"""Gates and experts of a mixture, each against what is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import probkit as pk
from families import a_draw
from probkit.models import moe
from probkit.models.moe.terms import Recentred, design, exponents, names

KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def branches():
    """Two lines that cross, 150 observations."""
    rng = np.random.default_rng(0)
    x = rng.uniform(-2, 2, 150)
    y = np.where(rng.random(150) < 0.6, 2 * x, 1 - x) + 0.3 * rng.normal(size=150)
    return moe.Pairs(x, y)


@pytest.fixture(scope="module")
def counts():
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, 150)
    return x, rng.poisson(np.exp(0.5 + 0.8 * x))


# Terms.


def test_terms_are_all_monomials_with_a_name_each():
    x = jnp.array([[2.0, 3.0]])
    assert design(x, 2).tolist() == [[1.0, 2.0, 3.0, 4.0, 6.0, 9.0]]
    assert names(("a", "b"), 2) == ("intercept", "a", "b", "a^2", "a b", "b^2")
    assert exponents(1, 3).tolist() == [[0], [1], [2], [3]]


@pytest.mark.parametrize(("inputs", "degree"), [(1, 1), (3, 1), (2, 2), (1, 3)])
def test_coefficients_in_units_give_the_same_function(inputs, degree):
    rng = np.random.default_rng(inputs + 10 * degree)
    center, scale = rng.normal(3, 1, inputs), rng.uniform(0.5, 2, inputs)
    recentred = Recentred(jnp.asarray(center), jnp.asarray(scale), degree, -2.0, 5.0)
    x = rng.normal(3, 2, (20, inputs))
    standard = jnp.asarray(rng.normal(size=(len(exponents(inputs, degree)), 2)))
    raw = recentred(standard)
    far = -2.0 + 5.0 * design(jnp.asarray((x - center) / scale), degree) @ standard
    np.testing.assert_allclose(design(jnp.asarray(x), degree) @ raw, far, rtol=1e-9)
    np.testing.assert_allclose(recentred.inv(raw), standard, rtol=1e-8)
    jacobian = jax.jacobian(lambda a: recentred(a).ravel())(standard)
    _, expected = np.linalg.slogdet(jacobian.reshape(standard.size, standard.size))
    found = recentred.log_abs_det_jacobian(standard, raw)
    assert float(found) == pytest.approx(expected, rel=1e-9)


# Every gate with normal experts, and every kind of experts.

GATES = {
    "softmax": moe.Softmax(),
    "sharper": moe.Softmax(temperature=0.5),
    "quadratic": moe.Softmax(degree=2),
    "constant": moe.Constant(),
    "tanh": moe.Activation(),
    "tanh, learned temperature": moe.Activation(temperature=None),
}


@pytest.mark.parametrize("gate", GATES.values(), ids=list(GATES))
def test_em_climbs_to_where_the_density_has_no_slope(gate, branches):
    """The M-step is right only if it stays where the slope of the log density is zero."""
    model = moe.MixtureOfExperts(2, gate)
    method = pk.EM(num_restarts=4, num_moves=2, atol=1e-9)
    fitted = pk.fit(model, branches, method, key=jax.random.key(0))
    assert fitted.facts["largest_fall"] <= 1e-9
    assert fitted.facts["gradient"] < 1e-3
    shares = pk.predict(fitted, branches.x, key=jax.random.key(1))["membership"]
    np.testing.assert_allclose(shares.sum("expert"), 1.0, rtol=1e-9)


@pytest.mark.parametrize("experts", [moe.StudentT(), moe.Normal(degree=2)])
def test_em_of_other_experts_has_no_slope_either(experts, branches):
    model = moe.MixtureOfExperts(2, experts=experts)
    method = pk.EM(num_restarts=4, num_moves=2, atol=1e-9)
    fitted = pk.fit(model, branches, method, key=jax.random.key(0))
    assert fitted.facts["largest_fall"] <= 1e-9
    assert fitted.facts["gradient"] < 1e-3


def test_a_temperature_divides_the_logits(branches):
    model = moe.MixtureOfExperts(3, moe.Softmax(temperature=0.5))
    sites = a_draw(model, branches, 1)
    plain = moe.Softmax().log_share({"gate": 2 * sites["gate"]}, branches.x)
    np.testing.assert_allclose(model.gate.log_share(sites, branches.x), plain, rtol=1e-12)


def test_a_quadratic_gate_with_known_labels_is_logistic_regression():
    from sklearn.linear_model import LogisticRegression

    rng = np.random.default_rng(2)
    x = rng.normal(5, 1, 300)
    label = (rng.random(300) < 1 / (1 + np.exp(2 - 2 * (x - 5) ** 2))).astype(int)
    data = moe.Pairs(x, rng.normal(size=300))
    model = moe.MixtureOfExperts(2, moe.Softmax(degree=2))
    r = jax.nn.one_hot(label, 2, dtype=float)
    sites = a_draw(model, data)

    @jax.jit
    def climbed(sites):
        def step(sites, _):
            (_, share), _ = model.e_step(sites, data)
            return model.m_step((r, share), sites, data, use_prior=False), None

        return jax.lax.scan(step, sites, length=30)[0]

    gate = np.asarray(climbed(sites)["gate"])
    z = np.column_stack([x - 5, (x - 5) ** 2])
    exact = LogisticRegression(C=np.inf, tol=1e-12).fit(z, label)
    logit = np.column_stack([np.ones(300), x, x**2]) @ (gate[:, 1] - gate[:, 0])
    np.testing.assert_allclose(logit, exact.decision_function(z), rtol=1e-3, atol=1e-3)


def test_constant_weights_are_the_mean_responsibilities(branches):
    model = moe.MixtureOfExperts(2, moe.Constant())
    method = pk.EM(num_restarts=4, num_moves=0, maximise="likelihood", atol=1e-10)
    fitted = pk.fit(model, branches, method, key=jax.random.key(0))
    sites = {k: jnp.asarray(v.values[0, 0]) for k, v in fitted.posterior.items()}
    (r, _), _ = model.e_step(sites, branches)
    np.testing.assert_allclose(r.mean(0), sites["weight"], atol=1e-5)
    # The truth is 0.6, and the share of 150 has a standard error of 0.04.
    assert abs(float(sites["weight"].max()) - 0.6) < 0.16


def test_a_sparse_prior_empties_an_expert_that_is_not_needed():
    rng = np.random.default_rng(4)
    x = rng.uniform(-2, 2, 200)
    data = moe.Pairs(x, 2 * x + rng.normal(size=200))
    model = moe.MixtureOfExperts(2, moe.Constant(concentration=0.01))
    fitted = pk.fit(model, data, pk.EM(num_restarts=4), key=jax.random.key(0))
    assert float(fitted.posterior["weight"].min()) < 1e-6


def test_the_sparse_gate_has_as_many_experts_as_it_says():
    gate = moe.TopK(2)
    logits = jnp.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0], [5.0, 1.0, 5.0]])
    assert gate.selected(logits).tolist() == [
        [False, True, True],
        [True, True, False],
        [True, False, True],
    ]
    log_share = gate._sparse(logits)
    assert bool(jnp.isneginf(log_share[0, 0]))
    np.testing.assert_allclose(jnp.exp(log_share).sum(1), 1.0, rtol=1e-12)
    np.testing.assert_allclose(
        log_share[0, 1:], jax.nn.log_softmax(jnp.array([3.0, 2.0])), rtol=1e-12
    )
    slope = jax.grad(lambda b: jnp.exp(gate._sparse(b)).sum())(logits)
    assert bool(jnp.isfinite(slope).all())


def test_steps_of_the_sparse_gate_never_lower_the_density(branches):
    """It jumps where observations change experts, so that its slope need not vanish."""
    model = moe.MixtureOfExperts(3, moe.TopK(2))
    method = pk.EM(num_restarts=4, num_moves=2)
    fitted = pk.fit(model, branches, method, key=jax.random.key(0))
    objective = fitted.tree["trace"]["objective"].values
    assert np.nanmin(np.diff(objective, axis=1)) >= -1e-9
    shares = pk.predict(fitted, branches.x, key=jax.random.key(1))["membership"]
    assert ((shares > 0).sum("expert") == 2).all()
    one = pk.fit(moe.MixtureOfExperts(1), branches, pk.EM(num_restarts=1), key=KEY)
    assert fitted.facts["objective"] > one.facts["objective"] + 10


def test_all_experts_selected_is_the_softmax(branches):
    sites = a_draw(moe.MixtureOfExperts(3), branches, 2)
    dense = moe.Softmax().log_share(sites, branches.x)
    np.testing.assert_allclose(moe.TopK(3).log_share(sites, branches.x), dense, rtol=1e-12)


@pytest.mark.parametrize("function", ["identity", "relu", lambda u: u**3])
def test_a_temperature_that_no_data_determine_is_refused(function):
    with pytest.raises(ValueError, match="the data do not determine the temperature"):
        moe.Activation(function, temperature=None)
    moe.Activation(function)


@pytest.mark.parametrize("function", ["tanh", "sigmoid", "gelu", "silu", "softplus"])
def test_a_temperature_that_data_determine_is_learned(function):
    assert moe.Activation(function, temperature=None).dims()["temperature"] == ()


def test_an_activation_that_is_not_known_is_refused():
    with pytest.raises(ValueError, match=r"function='step'.* takes tanh, sigmoid"):
        moe.Activation("step")


def test_one_yes_and_no_expert_is_logistic_regression(counts):
    from sklearn.linear_model import LogisticRegression

    x, count = counts
    y = (count > 2).astype(float)
    model = moe.MixtureOfExperts(1, experts=moe.Bernoulli())
    method = pk.EM(num_restarts=1, maximise="likelihood", atol=1e-12)
    fitted = pk.fit(model, moe.Pairs(x, y), method, key=jax.random.key(0))
    exact = LogisticRegression(C=np.inf, tol=1e-12).fit(x[:, None], y)
    found = fitted.posterior["coefficient"].values[0, 0, :, 0]
    np.testing.assert_allclose(found, [exact.intercept_[0], exact.coef_[0, 0]], rtol=1e-5)


def test_one_expert_of_counts_is_poisson_regression(counts):
    from sklearn.linear_model import PoissonRegressor

    x, y = counts
    model = moe.MixtureOfExperts(1, experts=moe.Poisson())
    method = pk.EM(num_restarts=1, maximise="likelihood", atol=1e-12)
    fitted = pk.fit(model, moe.Pairs(x, y), method, key=jax.random.key(0))
    exact = PoissonRegressor(alpha=0, tol=1e-12).fit(x[:, None], y)
    found = fitted.posterior["coefficient"].values[0, 0, :, 0]
    np.testing.assert_allclose(found, [exact.intercept_, exact.coef_[0]], rtol=1e-5)


def test_two_experts_of_counts_have_no_slope_left(counts):
    x, y = counts
    model = moe.MixtureOfExperts(2, experts=moe.Poisson())
    method = pk.EM(num_restarts=4, num_moves=2, atol=1e-9)
    fitted = pk.fit(model, moe.Pairs(x, y), method, key=jax.random.key(0))
    assert fitted.facts["largest_fall"] <= 1e-9
    assert fitted.facts["gradient"] < 1e-3


def test_outputs_that_experts_cannot_have_are_refused(counts):
    x, y = counts
    key = jax.random.key(0)
    with pytest.raises(ValueError, match=r"Bernoulli` takes outputs of 0 and 1"):
        pk.fit(
            moe.MixtureOfExperts(2, experts=moe.Bernoulli()),
            moe.Pairs(x, y),
            pk.EM(),
            key=key,
        )
    with pytest.raises(ValueError, match=r"Poisson` takes counts"):
        pk.fit(
            moe.MixtureOfExperts(2, experts=moe.Poisson()),
            moe.Pairs(x, y + 0.5),
            pk.EM(),
            key=key,
        )


def test_parts_of_another_kind_are_refused(no_checker):
    with pytest.raises(ValueError, match=r"MixtureOfExperts\(gate=...\)` got .*`str`"):
        moe.MixtureOfExperts(2, gate="softmax")
    with pytest.raises(
        ValueError, match=r"MixtureOfExperts\(experts=...\)` got .*`Softmax`"
    ):
        moe.MixtureOfExperts(2, experts=moe.Softmax())


def test_heavy_tails_of_the_noise_hold_an_outlier():
    rng = np.random.default_rng(3)
    x = rng.uniform(-2, 2, 200)
    y = np.where(x < 0, 2 * x, 3 - x) + 0.3 * rng.normal(size=200)
    y[7] = 1000.0
    model = moe.MixtureOfExperts(2, experts=moe.StudentT())
    fitted = pk.fit(model, moe.Pairs(x, y), pk.EM(num_restarts=4), key=jax.random.key(0))
    assert float(fitted.posterior["noise_sd"].max()) < 0.4
