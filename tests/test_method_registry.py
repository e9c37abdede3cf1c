"""The one registry of methods: names, suggestions, and what the paper's method is made of."""

import pytest

from semgan import artifacts, config, methods, recipes


def test_a_method_that_is_not_there_comes_with_a_suggestion():
    with pytest.raises(ValueError, match=r"Unknown method 'semgan-papr'. Did you mean 'semgan-paper'\? There are: sem"):
        methods.get("semgan-papr")
    with pytest.raises(ValueError, match="Unknown method 'xyz'. There are"):
        methods.get("xyz")


def test_rivals_are_the_methods_without_our_generator():
    ours = {"semgan", "semgan-paper", "student", "semgan-student"}
    assert {name for name, method in methods.METHODS.items() if not method.rival} == ours


def test_the_papers_method_undoes_the_departures_of_a_recipe():
    """Method sections 3 to 5, over a recipe that departs in every one of them."""
    recipe = recipes.load("lungs-64")
    paper = methods.get("semgan-paper")
    settings = config.override(recipe, paper.changes(recipe))
    settings = config.override(settings, paper.derived(settings))
    assert not settings.inversion.choose
    assert (settings.gan.feature_matching_of, settings.gan.pair_augment, settings.gan.augment) == (
        "pairs",
        "real",
        "none",
    )
    assert settings.encoder.generated_weight == settings.encoder.photometric_augment == 0
    assert (settings.inversion.space, settings.inversion.reduction) == ("w_plus", "sum")
    assert (settings.inversion.lambda_encoder, settings.inversion.lambda_prior) == (0.1, 0)
    assert (settings.gan.r1_gamma, settings.encoder.learning_rate) == (10, 0.001)
    # The authors' gradient is of the mean of 32 pairs, summed over 3 scales, beside half of the hinges; they add
    # matching up over 2 + 1 layers.
    assert settings.gan.pair_r1_gamma == pytest.approx(2 * 10 * 3**2 / 32**2)
    assert settings.gan.feature_matching == 2 * 3
    assert settings.perceptual.distance == "auto"
    assert settings.generator == recipes.load("lungs-64").generator  # sizes stay the recipe's


@pytest.mark.parametrize(
    ("name", "lambda_pixel", "steps"),
    [("lungs-64", 0.001, 200), ("skin-64", 0.1, 200), ("faces-64", 0.001, 400), ("liver-ct", 0.001, 400)],
)
def test_the_papers_method_takes_the_supplements_inversion_settings_of_the_task(name, lambda_pixel, steps):
    recipe = recipes.load(name)
    inversion = config.override(recipe, methods.get("semgan-paper").changes(recipe)).inversion
    assert (inversion.lambda_pixel, inversion.steps) == (lambda_pixel, steps)


def test_the_papers_method_keeps_lambda_3_on_mri_and_no_class_shares():
    recipe = recipes.load("liver-ct-64")
    assert recipe.gan.class_share_weight > 0
    settings = config.override(recipe, methods.get("semgan-paper").changes(recipe))
    assert (settings.inversion.lambda_pixel, settings.inversion.lambda_pixel_mri) == (0.001, pytest.approx(1e-5))
    assert settings.gan.class_share_weight == 0


def test_a_description_that_names_no_method_is_told(tmp_path):
    artifacts.save_model(tmp_path / "model", {}, {}, "card")
    with pytest.raises(ValueError, match="config.json names no method; copy the whole model folder again"):
        methods.load(tmp_path)


def test_a_model_of_an_unknown_method_is_refused(tmp_path):
    artifacts.save_model(tmp_path / "model", {"method": "time-machine"}, {}, "card")
    with pytest.raises(ValueError, match="Unknown method 'time-machine'"):
        methods.load(tmp_path)
