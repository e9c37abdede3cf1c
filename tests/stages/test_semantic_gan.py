import numpy as np
import pytest
import torch
from PIL import Image
from tiny_networks import WIDTHS, generated_images, tiny_networks
from torch.testing import assert_close

from semgan import artifacts
from semgan.config import Settings, override
from semgan.segment import segment
from semgan.stages.semantic_gan import SemanticGan, model_files

SETTINGS = override(
    Settings(),
    {
        "classes": ("background", "lung"),
        "recipe": "tiny",
        "preprocessing": {"size_px": 16, "channels": 1},
        "generator": {"w_dim": 16, "mapping_layers": 2, "widths": WIDTHS},
        "encoder": {"trunk": "narrow", "lateral_width": 16},
        "inversion": {"steps": 3, "precision": "float32"},
    },
)


@pytest.fixture(scope="module")
def networks():
    return tiny_networks()


@pytest.fixture
def folder(networks, tmp_path):
    return save(networks, tmp_path / "model", chosen_steps=2)


def save(networks, folder, *, encoder=True, **facts):
    files = model_files(
        SETTINGS,
        generator=networks.generator,
        whitening=networks.whitening,
        encoder=networks.encoder if encoder else None,
        perceptual=networks.perceptual,
        **facts,
    )
    artifacts.save_model(folder, *files)
    return folder


def in_memory(networks):
    return SemanticGan(
        SETTINGS, networks.generator, networks.whitening, networks.encoder, networks.perceptual, chosen_steps=2
    )


def test_loaded_model_answers_as_the_trained_one(networks, folder):
    images = generated_images(networks, 2)
    trained = in_memory(networks).segment_batch(images)
    loaded = SemanticGan.load(folder, device="cpu").segment_batch(images)
    assert loaded.steps == trained.steps == 2  # chosen on validation, not the settings' 3
    assert_close(loaded.probabilities, trained.probabilities)
    assert_close(loaded.trace["loss"], trained.trace["loss"])


def test_masks_only_are_those_of_steps_0_without_losses(networks, tmp_path):
    images = generated_images(networks, 3)
    whole = in_memory(networks).segment_batch(images, steps=0)
    quick = in_memory(networks).masks_only(images)
    assert quick.trace == {} and whole.trace and quick.steps == 0
    for name in ("probabilities", "confidence", "reconstruction", "w_plus"):
        assert_close(getattr(quick, name), getattr(whole, name))
    without = SemanticGan.load(save(networks, tmp_path / "gan_only", encoder=False), device="cpu")
    with pytest.raises(ValueError, match="no encoder"):
        without.masks_only(images)


def test_model_without_encoder_searches_from_the_mean_latent_and_says_so(networks, tmp_path, caplog):
    model = SemanticGan.load(save(networks, tmp_path / "gan_only", encoder=False), device="cpu")
    with pytest.raises(ValueError, match="no encoder yet, and steps 0 are its answer alone: finish the training"):
        model.segment_batch(generated_images(networks, 1), steps=0)  # one mask for all
    found = [model.segment_batch(generated_images(networks, 2), steps=1, snapshot_steps=(0,)) for _ in range(2)][0]
    assert sum("every search begins at the same code" in record.message for record in caplog.records) == 1
    assert model.encoder is None and model.steps == 3
    assert_close(found.snapshots[0][0], found.snapshots[0][1])
    assert not torch.equal(found.probabilities[0], found.probabilities[1])


def test_a_model_folder_that_lost_its_encoder_is_told(networks, tmp_path):
    folder = save(networks, tmp_path / "model", training={"images_seen_encoder": 16})
    description = artifacts.read_json(folder / "config.json")
    artifacts.write_json(folder / "config.json", description | {"training": {"images_seen_encoder": 16}})
    SemanticGan.load(folder, device="cpu")
    (folder / "encoder.safetensors").unlink()
    with pytest.raises(ValueError, match="lacks encoder.safetensors; copy the whole model folder again"):
        SemanticGan.load(folder, device="cpu")


def test_answers_have_each_images_own_size(folder, tmp_path):
    model = SemanticGan.load(folder, device="cpu")
    wide = np.random.default_rng(0).integers(0, 256, (20, 50), dtype=np.uint8)
    Image.fromarray(np.stack([wide] * 3, -1)[:, :9]).save(tmp_path / "narrow.png")  # colour file, grey model
    answers = model.segment([wide, tmp_path / "narrow.png"], snapshot_steps=(0, 1))
    assert [answer.label_map.shape for answer in answers] == [(20, 50), (20, 9)]
    assert answers[0].probabilities.shape == (2, 20, 50) and answers[0].label_map.dtype == np.uint8
    assert np.array_equal(answers[0].label_map, answers[0].probabilities.argmax(0))
    assert set(answers[0].snapshots) == {0, 1} and answers[0].snapshots[0].shape == (20, 50)
    assert answers[0].reconstruction.shape == (16, 16)
    assert set(answers[0].losses) == {"loss", "perceptual", "pixel", "encoder"}


def test_samples_depend_on_their_own_seed_alone(folder):
    model = SemanticGan.load(folder, device="cpu")
    many = model.sample([5, 7, 9])
    one = model.sample([7])
    assert many.images.shape == (3, 16, 16) and many.images.dtype == many.label_maps.dtype == np.uint8
    assert np.abs(many.images[1].astype(int) - one.images[0]).max() <= 1
    assert (many.label_maps[1] == one.label_maps[0]).mean() > 0.99
    assert (many.images[0] != many.images[1]).any()
    assert set(np.unique(many.label_maps)) <= {0, 1}


def test_sampling_needs_no_distance_and_segmenting_loads_it_once(networks):
    loaded = []

    def load():
        loaded.append(1)
        return networks.perceptual

    model = SemanticGan(SETTINGS, networks.generator, networks.whitening, networks.encoder, load, chosen_steps=1)
    model.sample([0])
    assert loaded == []
    images = generated_images(networks, 1)
    expected = in_memory(networks).segment_batch(images, steps=1).trace["loss"]
    assert_close(model.segment_batch(images).trace["loss"], expected)
    model.segment_batch(images)
    assert loaded == [1]


def test_truncation_to_zero_leaves_only_the_noise_to_differ(folder):
    model = SemanticGan.load(folder, device="cpu")
    with torch.no_grad():
        for convolution in model.generator.convolutions:
            convolution.noise_strength.zero_()
    images = model.sample([1, 2], truncation=0.0).images
    assert np.array_equal(images[0], images[1])


def test_model_folder_tells_how_it_was_made(folder, networks, tmp_path):
    described = artifacts.read_json(folder / "config.json")
    assert described["classes"] == ["background", "lung"] and described["method"] == "semgan"
    assert described["preprocessing"]["default"]["size_px"] == 16
    assert described["settings"]["perceptual"]["distance"] == "discriminator"  # what was used, not "auto"
    assert described["inversion"] == {"chosen_steps": 2}
    full = save(networks, tmp_path / "full", scores={"validation": 0.91234}, data={"data set": "lungs"})
    card = (full / "README.md").read_text()
    for words in ("Not a medical device", "lungs", "0.9123", "`tiny`", "Limits", "16 x 16"):
        assert words in card


def test_loaded_networks_stay_fixed_whatever_a_caller_does(folder):
    model = SemanticGan.load(folder, device="cpu")
    model.encoder.train()
    assert not any(part.training for part in model.encoder.modules())
    assert not any(weight.requires_grad for weight in model.generator.parameters())


@pytest.mark.parametrize("damage", ["missing", "truncated", "other_settings"])
def test_damaged_model_folders_name_the_file(folder, damage):
    path = folder / "generator.safetensors"
    if damage == "missing":
        path.unlink()
    elif damage == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    else:
        config = artifacts.read_json(folder / "config.json")
        config["settings"]["generator"]["w_dim"] = 8
        artifacts.write_json(folder / "config.json", config)
    with pytest.raises((ValueError, FileNotFoundError), match="generator.safetensors"):
        SemanticGan.load(folder, device="cpu")


def test_wrong_shapes_and_modalities_say_what_is_expected(folder):
    model = SemanticGan.load(folder, device="cpu")
    with pytest.raises(ValueError, match=r"\[batch, 1, 16, 16\]; got \(2, 3, 16, 16\)"):
        model.segment_batch(torch.zeros(2, 3, 16, 16))
    with pytest.raises(ValueError, match="no modality|modality 'mri'.*default"):
        model.preprocess(np.zeros((8, 8), np.uint8), "mri")


def test_segment_verb_writes_losses_of_the_inversion(folder, tmp_path):
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.full((10, 12), 90, np.uint8)).save(images / f"{name}.png")
    rows = segment(folder, images, tmp_path / "out", steps=1, device="cpu")
    header = (tmp_path / "out" / "segmentation.csv").read_text().splitlines()[0]
    assert header == "stem,steps,confidence,loss,perceptual,pixel,encoder,seconds"
    assert [row["stem"] for row in rows] == ["a", "b"] and rows[0]["steps"] == 1
