"""What trust learns from answered validation images: predicted scores, the domain's end, a temperature, thresholds."""

from __future__ import annotations

import json

import numpy as np
import pytest
from conftest import made_samples

from semgan.metrics.calibration import calibration_scores
from semgan.trust.domain import STRANGEST, fit_domain
from semgan.trust.fit import FILE, Trust, best_threshold, failure_limit, fit
from semgan.trust.samples import OWN
from semgan.trust.temperature import fit_temperature, tempered


@pytest.fixture(scope="module")
def samples():
    return made_samples()


@pytest.fixture(scope="module")
def trust(samples):
    return fit(samples)


def test_scores_of_new_images_are_predicted_and_bad_ones_are_looked_at(trust):
    new = made_samples(seed=7)
    found = trust.columns(new.signals)
    assert np.abs(found["predicted_score"] - new.scores[OWN]).mean() < 0.06
    assert ((found["predicted_score"] >= 0) & (found["predicted_score"] <= 1)).all()
    failed = new.scores[OWN] < trust.limit
    looked_at = found["look_at"].astype(bool)
    assert looked_at[failed].mean() > 0.9 and looked_at[new.intact & ~failed].mean() < 0.3


def test_the_default_limit_makes_failures_of_the_worst_fifth_in_domain(samples, trust):
    assert (samples.scores[OWN][samples.intact] < trust.limit).mean() == pytest.approx(0.2, abs=0.05)
    assert fit(samples, limit=0.5).limit == 0.5


def test_what_is_told_is_held_out_and_better_than_the_mean_for_everybody(trust):
    told = trust.report["predicted score"]
    assert told["mean absolute error"] < 0.5 * told["mean absolute error of the mean"]
    assert told["auroc of failures"] > 0.9 and told["rank correlation"] > 0.9
    assert told["aurc of the best order"] <= told["aurc"]
    assert set(told["auroc of single signals"]) == {"entropy", "reconstruction", "code_distance"}
    assert trust.report["copies"] == 3 and trust.report["images"] == 24


def test_signals_that_say_nothing_predict_nothing():
    samples = made_samples()
    chance = np.random.default_rng(1)
    samples.signals.update({name: chance.normal(size=len(samples.groups)) for name in samples.signals})
    told = fit(samples).report["predicted score"]
    assert told["mean absolute error"] > 0.9 * told["mean absolute error of the mean"]
    assert 0.3 < told["auroc of failures"] < 0.7


def test_what_is_told_of_a_few_images_is_not_told_by_those_that_were_learned_from():
    """Four numbers of chance explain ten images well, and new ones not at all."""
    samples = made_samples(10, 0)
    chance = np.random.default_rng(3)
    samples.signals.update({name: chance.normal(size=10) for name in samples.signals})
    told = fit(samples).report
    errors = [told["predicted score"][name] for name in ("mean absolute error", "mean absolute error of the mean")]
    assert errors[0] > 0.95 * errors[1]
    assert told["flagged"]["of validation images that are no failures"] > 0.1  # strangers to the others' domain


@pytest.mark.parametrize("cases", [10, 40])
def test_few_new_images_of_the_domain_are_strange(cases):
    found = [fit(made_samples(cases, seed=seed)).columns(made_samples(200, 0, seed=90).signals) for seed in range(6)]
    assert np.mean([each["out_of_domain"] > 1 for each in found]) < (0.12 if cases == 10 else 0.05)


def test_scores_that_many_images_share_leave_failures_to_learn_from():
    zeros = np.array([0.0] * 5 + [0.5, 0.6] * 8)
    assert failure_limit(zeros) == 0.5 and failure_limit(np.linspace(0, 1, 11)) == pytest.approx(0.2)
    assert failure_limit(np.ones(4)) == 1.0
    samples = made_samples()
    samples.scores[OWN][samples.intact] = np.where(np.arange(24) < 8, 0.0, samples.scores[OWN][samples.intact])
    told = fit(samples)
    assert told.report["predicted score, unshifted"]["failures"] >= 8 and told.threshold > 0


def test_a_report_without_failures_is_json(samples):
    told = fit(samples, limit=0.0).report
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["predicted score"]["auroc of failures"] is None and told["flagged"]["of failures"] is None


def test_one_image_without_a_number_does_not_end_the_domain_for_all(samples):
    own = {name: values[samples.intact].copy() for name, values in samples.signals.items()}
    whole = fit_domain(own)
    own["reconstruction"][3], own["code_distance"][5] = np.nan, np.inf
    domain = fit_domain(own)
    assert domain.limit == pytest.approx(whole.limit, rel=0.5)
    assert (domain.score(own) == STRANGEST).sum() == 2
    own["reconstruction"][:] = np.nan
    assert fit_domain(own).names == ("code_distance",)


def test_one_unknown_image_does_not_end_the_domain_of_a_trained_model_either(trust):
    """Held out, that image is as strange as can be; the domain is that of the others."""
    samples = made_samples()
    samples.signals["reconstruction"][3] = np.nan
    found = fit(samples)
    assert found.domain.limit == pytest.approx(trust.domain.limit, rel=0.5)
    assert json.loads(json.dumps(found.report, allow_nan=False)) == found.report


def test_a_report_of_scores_that_are_all_the_same_is_json():
    samples = made_samples()
    samples.scores[OWN][:] = 1.0
    told = fit(samples).report
    assert json.loads(json.dumps(told, allow_nan=False)) == told
    assert told["predicted score"]["rank correlation"] is None


def test_images_beyond_the_domain_are_looked_at_whatever_their_predicted_score(trust, samples):
    middle = {name: np.array([np.median(values[samples.intact])]) for name, values in samples.signals.items()}
    assert trust.columns(middle)["look_at"] == [0] and trust.columns(middle)["out_of_domain"] < 1
    strange = middle | {"code_distance": np.array([30.0])}
    assert trust.columns(strange)["out_of_domain"] > 1 and trust.columns(strange)["look_at"] == [1]
    unknown = middle | {"code_distance": np.array([np.nan])}
    assert trust.columns(unknown)["out_of_domain"] == STRANGEST and trust.columns(unknown)["look_at"] == [1]


def test_the_domain_ends_at_the_99_percent_quantile_and_takes_distances_before_doubts(samples):
    own = {name: values[samples.intact] for name, values in samples.signals.items()}
    domain = fit_domain(own)
    assert domain.names == ("reconstruction", "code_distance")
    assert (domain.score(own) > 1).sum() == 1 and domain.score(own).max() < 1.5
    better = {name: values - 100 for name, values in own.items()}
    assert (domain.score(better) == 0).all()
    feed_forward = fit_domain({name: own[name] for name in ("entropy", "foreground")})
    assert feed_forward.names == ("entropy",)
    with pytest.raises(ValueError, match="None of the signals foreground"):
        fit_domain({"foreground": own["foreground"]})


def test_the_temperature_makes_probabilities_true_and_masks_stay():
    """Pixels that are right four times of five, told as 99 %, become 80 %."""
    samples = made_samples(cases=30)
    found = fit_temperature(samples.probabilities, samples.truths, samples.groups[:30])
    assert found.after.ece < 0.05 < found.before.ece and found.after.nll < found.before.nll
    assert found.temperature > 2
    softened = tempered(samples.probabilities, found.temperature, axis=1)
    assert softened.max(1).mean() == pytest.approx(0.8, abs=0.05)
    assert (softened.argmax(1) == samples.probabilities.argmax(1)).all()
    assert softened.sum(1) == pytest.approx(1, abs=1e-5)
    true = np.stack([1 - samples.truths, samples.truths], 1) * 0.6 + 0.2
    sharper = tempered(true, 0.5, axis=1)
    assert calibration_scores(sharper, samples.truths).nll < calibration_scores(true, samples.truths).nll


def test_what_is_told_of_the_temperature_is_held_out():
    """One patient's pixels are wrong and sure of it: a temperature that has seen them looks better than it is."""
    samples = made_samples(cases=8)
    wrong = samples.probabilities.copy()
    wrong[0] = np.stack([samples.truths[0], 1 - samples.truths[0]]) * 0.98 + 0.01
    groups = ["other", "other", *samples.groups[2:8]]
    found = fit_temperature(wrong, samples.truths, groups)
    seen = calibration_scores(tempered(wrong, found.temperature, axis=1), samples.truths)
    assert found.after.nll > seen.nll + 1e-3


def test_probabilities_that_are_true_are_left_as_they_are():
    chance = np.random.default_rng(0)
    foreground = chance.uniform(0.02, 0.98, (40, 16, 16))
    truths = (chance.random(foreground.shape) < foreground).astype(np.uint8)
    found = fit_temperature(np.stack([1 - foreground, foreground], 1), truths, [str(i) for i in range(40)])
    assert found.temperature == pytest.approx(1, abs=0.1)


def test_the_best_threshold_parts_failures_from_the_rest():
    predicted = np.array([0.1, 0.2, 0.5, 0.6, 0.9])
    assert best_threshold(predicted, predicted < 0.3) == 0.5
    assert best_threshold(predicted, predicted < 0) == 0.0 and best_threshold(predicted, predicted < 2) == 1.0


def test_trust_survives_its_file_and_a_damaged_one_is_told(trust, tmp_path):
    assert Trust.read(tmp_path) is None
    trust.write(tmp_path)
    again = Trust.read(tmp_path)
    assert again is not None and again.score == trust.score and again.domain == trust.domain
    assert again.report == json.loads((tmp_path / FILE).read_text())["report"]
    saved = json.loads((tmp_path / FILE).read_text())
    for damage in ({"format": 9}, {"score": {}}, {"unknown": 1}):
        (tmp_path / FILE).write_text(json.dumps(saved | damage))
        with pytest.raises(ValueError, match="trust.json is damaged"):
            Trust.read(tmp_path)


def test_too_few_cases_are_refused():
    with pytest.raises(ValueError, match="8 validation cases or more; got 5"):
        fit(made_samples(cases=5))
