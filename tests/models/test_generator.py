"""The joint generator: any size, channels and classes; every style layer and noise map counts."""

import pytest
import torch
from torch.testing import assert_close

from semgan.config import GeneratorSettings
from semgan.models.generator import Generator, default_width, resolve_widths

SMALL = GeneratorSettings(w_dim=8, mapping_layers=2, width_multiplier=0.01)


def small(size_px=16, image_channels=1, label_channels=1, **changes):
    torch.manual_seed(0)
    levels = size_px.bit_length() - 2
    settings = SMALL.model_copy(update={"widths": (8,) * levels} | changes)
    return Generator(settings, size_px=size_px, image_channels=image_channels, label_channels=label_channels)


def noisy(generator, strength=0.3):
    with torch.no_grad():
        for convolution in generator.convolutions:
            convolution.noise_strength.fill_(strength)
    return generator


@pytest.mark.parametrize(("size_px", "layers"), [(16, 6), (32, 8), (64, 10)])
@pytest.mark.parametrize(("image_channels", "label_channels"), [(1, 1), (3, 1), (1, 8), (5, 4)])
def test_images_and_logits_of_every_size_and_kind(size_px, layers, image_channels, label_channels):
    generator = small(size_px, image_channels, label_channels)
    joint = generator(torch.randn(2, 8))
    assert generator.layers == layers
    assert joint.image.shape == (2, image_channels, size_px, size_px)
    assert joint.logits.shape == (2, label_channels, size_px, size_px)
    assert joint.image.dtype == joint.logits.dtype == torch.float32


def test_at_512_px_there_are_16_layers_of_the_authors_widths():
    with torch.device("meta"):
        generator = Generator(GeneratorSettings(), size_px=512, image_channels=3, label_channels=8)
    assert generator.layers == 16 and len(generator.convolutions) == 15
    assert [head.image_weight.shape[1] for head in generator.heads] == [512, 512, 512, 512, 512, 256, 128, 64]
    assert generator.noise_sides[-1] == 512


def test_widths_are_the_authors_table():
    """512 to 64 px with multiplier 2, then 256 at 128, 128 at 256; StyleGAN2's own table is multiplier 1."""
    assert [default_width(4 * 2**level, 2.0) for level in range(8)] == [512] * 5 + [256, 128, 64]
    assert [default_width(4 * 2**level, 1.0) for level in range(8)] == [512] * 4 + [256, 128, 64, 32]
    assert resolve_widths(None, 2.0, 256) == (512, 512, 512, 512, 512, 256, 128)
    assert resolve_widths((9, 8, 7), 2.0, 16) == (9, 8, 7)


@pytest.mark.parametrize("widths", [(8, 8), (8, 8, 8, 8)])
def test_a_wrong_number_of_widths_says_how_many_are_needed(widths):
    with pytest.raises(ValueError, match="At 16 px, widths needs 3 numbers"):
        resolve_widths(widths, 1.0, 16)


@pytest.mark.parametrize("size_px", [8, 48, 100, 1024])
def test_sizes_that_are_no_power_of_two_from_16_to_512_are_refused(size_px):
    with pytest.raises(ValueError, match=f"power of two from 16 to 512; got {size_px}"):
        resolve_widths(None, 1.0, size_px)


def test_every_style_layer_changes_image_and_label():
    generator = small(32, 2, 3)
    for output in ("image", "logits"):
        w_plus = torch.randn(2, generator.layers, 8, requires_grad=True)
        getattr(generator.synthesis(w_plus), output).square().sum().backward()
        assert (w_plus.grad.abs().sum((0, 2)) > 0).all()


def test_noise_changes_images_and_a_row_of_noise_belongs_to_one_image():
    generator = noisy(small())
    w_plus = generator.broadcast(generator.mapping(torch.randn(1, 8))).expand(3, -1, -1)
    noise = torch.randn(3, generator.noise_size)
    noise[2] = noise[0]
    image = generator.synthesis(w_plus, noise).image
    assert_close(image[0], image[2])
    assert (image[0] - image[1]).abs().mean() > 0.01
    assert_close(generator.synthesis(w_plus[:1], noise[:1]).image, image[:1])


def test_every_noise_value_is_used_once():
    generator = noisy(small(16))
    assert generator.noise_size == 16 + 2 * 64 + 2 * 256
    noise = torch.zeros(1, generator.noise_size, requires_grad=True)
    generator.synthesis(torch.randn(1, generator.layers, 8), noise).image.square().sum().backward()
    assert (noise.grad != 0).all()
    rows = torch.arange(generator.noise_size)[None].float()
    maps = generator.noise_maps(rows)
    assert [tuple(piece.shape[1:]) for piece in maps] == [(1, 4, 4)] + 2 * [(1, 8, 8)] + 2 * [(1, 16, 16)]
    assert torch.equal(torch.cat([piece.flatten() for piece in maps]), rows[0])


def test_without_noise_the_fixed_maps_saved_with_the_weights_are_used():
    generator = noisy(small())
    w_plus = torch.randn(2, generator.layers, 8)
    assert_close(generator.synthesis(w_plus).image, generator.synthesis(w_plus, generator.fixed_noise).image)
    other = noisy(small())
    with torch.no_grad():
        other.fixed_noise.normal_()
    assert not torch.allclose(other.synthesis(w_plus).image, generator.synthesis(w_plus).image, atol=1e-3)
    other.load_state_dict(generator.state_dict())
    assert_close(other.synthesis(w_plus).image, generator.synthesis(w_plus).image)


def test_labels_come_from_the_trunk_and_their_own_head_alone():
    generator = small(16, 2, 3)
    generator(torch.randn(2, 8)).logits.square().sum().backward()
    for head in generator.heads:
        assert head.label_weight.grad.abs().sum() > 0 and head.image_weight.grad.abs().sum() == 0
        assert head.image_style.weight.grad.abs().sum() == 0
    assert generator.convolutions[0].weight.grad.abs().sum() > 0


def test_the_length_of_z_does_not_matter_only_its_direction():
    generator = small()
    z = torch.randn(4, 8)
    assert_close(generator.mapping(z), generator.mapping(5 * z))
    assert not torch.allclose(generator.mapping(z), generator.mapping(-z), atol=0.01)


def test_an_image_is_the_same_alone_and_in_a_batch():
    generator = small(32, 3, 4)
    z = torch.randn(5, 8)
    whole, alone = generator(z), generator(z[2:3])
    assert_close(whole.image[2:3], alone.image)
    assert_close(whole.logits[2:3], alone.logits)
