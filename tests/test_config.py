"""Settings: unknown keys and wrong values are named, later layers win, YAML goes round."""

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from semgan import config, seeding
from semgan.config import Settings, override, parse_assignments
from semgan.types import MOST_SEED


@pytest.mark.parametrize(
    ("changes", "named", "suggestion"),
    [
        ({"gan": {"bach": 3}}, "gan.bach", "gan.batch"),
        ({"generater": {"w_dim": 3}}, "generater", "generator"),
        ({"lambda_encoder": 3}, "lambda_encoder", "inversion.lambda_encoder"),
        ({"encoder": {"truncated": 1}}, "encoder.truncated", "encoder.trunk"),
        ({"zzz": 1}, "zzz", "--dry-run"),
        ({3: 1}, "3", "--dry-run"),
    ],
)
def test_an_unknown_key_is_named_with_a_suggestion(changes, named, suggestion):
    with pytest.raises(ValueError) as caught:
        override(Settings(), changes, "mine.yaml")
    message = str(caught.value)
    assert f"'{named}'" in message and "mine.yaml" in message and suggestion in message


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"gan": {"batch": "many"}}, ("gan.batch", "many")),
        ({"gan": {"batch": 1}}, ("gan.batch", "1", "2")),
        ({"gan": {"augment": "some"}}, ("gan.augment", "some", "adaptive")),
        ({"preprocessing": {"size_px": 8}}, ("preprocessing.size_px", "16")),
        ({"gan": 3}, ("gan", "3")),
        ({"gan": None}, ("gan", "None")),
        ({"generator": {"widths": ["a"]}}, ("generator.widths", "a")),
        ({"seed": -1}, ("seed", "-1")),
        ({"split_seed": 0.5}, ("split_seed", "0.5")),
    ],
)
def test_a_wrong_value_is_named_with_what_came_and_where(changes, named):
    with pytest.raises(ValueError) as caught:
        override(Settings(), changes, "mine.yaml")
    for words in (*named, "mine.yaml"):
        assert words in str(caught.value)


def test_a_change_leaves_every_other_setting_alone():
    changed = override(Settings(), {"gan": {"batch": 8}, "generator": {"widths": [4, 8]}})
    assert changed.gan.batch == 8 and changed.generator.widths == (4, 8)
    back = override(changed, {"gan": {"batch": Settings().gan.batch}, "generator": {"widths": None}})
    assert back == Settings()


def test_later_overrides_win():
    once = override(Settings(), {"gan": {"batch": 8, "images": 100}})
    twice = override(once, {"gan": {"batch": 16}})
    assert (twice.gan.batch, twice.gan.images) == (16, 100)


def test_settings_cannot_be_changed_in_place():
    with pytest.raises(ValidationError):
        Settings().gan.batch = 3  # type: ignore[misc]


def test_assignments_are_nested_and_read_as_yaml():
    texts = ["gan.batch=16", "gan.learning_rate=1e-3", "generator.widths=[8, 8]", "labels=null", "data.mirror=false"]
    changes = parse_assignments(texts)
    assert changes["gan"]["batch"] == 16 and changes["labels"] is None
    settings = override(Settings(), changes)
    assert settings.gan.learning_rate == 0.001 and settings.generator.widths == (8, 8)
    assert settings.labels is None and settings.data.mirror is False


def test_of_two_assignments_the_later_one_wins():
    assert parse_assignments(["gan.batch=16", "gan.batch=8"]) == {"gan": {"batch": 8}}


@pytest.mark.parametrize("text", ["gan.batch", "=3", " = 3", ""])
def test_an_assignment_without_key_or_value_says_what_is_expected(text):
    with pytest.raises(ValueError, match="--set takes key=value, for example gan.batch=16; got"):
        parse_assignments([text])


@pytest.mark.parametrize("texts", [["gan.widths=[1, 2"], ["gan=3", "gan.batch=4"], ["a='x"]])
def test_an_assignment_that_cannot_be_read_is_named(texts):
    with pytest.raises(ValueError, match=f"--set {texts[-1].split('=')[0]}"):
        parse_assignments(texts)


def test_saved_settings_are_read_back_the_same(tmp_path):
    changes = {"gan": {"batch": 8, "learning_rate": 1e-5}, "generator": {"widths": [4, 4]}, "classes": ["a", "b", "c"]}
    settings = override(Settings(), changes | {"perceptual": {"trunk_weights": "some/where.pth"}, "labels": 9})
    (tmp_path / "config.yaml").write_text(config.dump(settings))
    assert config.load(tmp_path / "config.yaml") == settings


@hypothesis.settings(deadline=None, max_examples=50)
@given(st.floats(1e-12, 1e12, allow_subnormal=False), st.integers(2, 10**9), st.text("abcé: #'\"\n", max_size=8))
def test_any_value_survives_the_yaml_file(rate, batch, name):
    settings = override(Settings(), {"gan": {"learning_rate": rate, "batch": batch}, "recipe": name})
    read = config.yaml.safe_load(config.dump(settings))
    assert override(Settings(), read) == settings


def test_an_empty_settings_file_changes_nothing(tmp_path):
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert config.load(tmp_path / "empty.yaml") == Settings()


@pytest.mark.parametrize(("text", "words"), [("a: [1", "not valid YAML"), ("- 1\n- 2", "key: value"), ("7", "int")])
def test_a_settings_file_of_another_kind_is_named(tmp_path, text, words):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        config.load(path)
    assert str(path) in str(caught.value)


def test_every_number_of_the_supplement_is_a_default():
    """Method sections 3 to 5; recipes for small machines change them, `semgan-paper` on a plain recipe does not."""
    settings = Settings()
    gan, encoder, inversion = settings.gan, settings.encoder, settings.inversion
    assert (gan.learning_rate, gan.beta1, gan.beta2, gan.batch, gan.style_mixing) == (0.002, 0.0, 0.99, 32, 0.9)
    assert (gan.r1_gamma, gan.r1_every, gan.path_length_weight, gan.path_length_every) == (10, 16, 2, 4)
    assert (settings.data.affine_scale, settings.data.affine_translate, settings.data.affine_rotate_deg) == (
        0.1,
        0.15,
        15,
    )
    assert (encoder.learning_rate, encoder.batch, encoder.clip_norm, encoder.lambda_pixel) == (0.001, 16, 2.0, 0.1)
    assert encoder.images * encoder.constant_share == 30_000 * 16
    assert (inversion.learning_rate, inversion.lambda_encoder, inversion.lambda_pixel) == (0.1, 0.1, 0.001)
    assert (settings.generator.w_dim, settings.generator.mapping_layers, settings.critics.pair_scales) == (512, 8, 3)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("encoder.learning_rate=yes", None),
        ("labels=true", None),
        ("seed=on", None),
        ("gan.learning_rate=.nan", None),
        ("inversion.lambda_prior=.inf", None),
        ("gan.learning_rate=-1", None),
        ("gan.images=0", None),
        ("gan.ema_half_life_images=0", None),
        ("run.log_every_images=0", None),
        ("run.checkpoint_every_images=0", None),
        ("run.preview_every_images=0", None),
        ("threads=0", None),
        (f"seed={2**63}", None),
        ("generator.widths=[8, 0]", None),
        ("data.affine_scale_range=[1.4, 0.7]", None),
        ("gan.images=1e5", 100_000),
        ("perceptual.trunk_weights=None", "None"),
        ("labels=None", "None"),
        ("baseline.intensity_augment=yes", True),
        ("data.mirror=off", False),
    ],
)
def test_values_are_taken_as_they_were_meant_or_refused(text, value):
    """None: refused, naming the key. "None": the setting is not used."""
    key = text.partition("=")[0]
    if value is None:
        with pytest.raises(ValueError, match=f"Setting '{key}.*' in --set: got .*; (?!Value error)"):
            override(Settings(), parse_assignments([text]), "--set")
        return
    found = override(Settings(), parse_assignments([text]), "--set")
    for name in key.split("."):
        found = getattr(found, name)
    assert found == (None if value == "None" else value)


def test_the_largest_seed_is_the_one_that_random_numbers_take():
    assert seeding.generator(MOST_SEED, "stream", MOST_SEED).random() < 1
    assert override(Settings(), {"seed": MOST_SEED}).seed == MOST_SEED


def test_a_table_given_after_one_of_its_keys_keeps_that_key():
    changes = parse_assignments(["gan.batch=16", "gan={learning_rate: 0.1}", "gan={batch: 8, images: 9}"])
    assert changes == {"gan": {"batch": 8, "learning_rate": 0.1, "images": 9}}


def test_a_settings_file_may_have_keys_with_dots(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("gan.batch: 6\ngan:\n  images: 9\nencoder.trunk: narrow\n")
    assert config.read_overrides(path) == {"gan": {"batch": 6, "images": 9}, "encoder": {"trunk": "narrow"}}
    path.write_text("gan.bach: 6\n")
    with pytest.raises(ValueError, match="'gan.bach' in .*mine.yaml. Did you mean 'gan.batch'"):
        config.load(path)
