import pytest
import torch

from semgan.config import EncoderSettings
from semgan.models.encoder import Encoder
from semgan.runtime.modes import evaluating


def narrow(size_px=32, channels=1, w_dim=16, lateral_width=32):
    torch.manual_seed(0)
    layers = 2 * size_px.bit_length() - 4
    settings = EncoderSettings(trunk="narrow", lateral_width=lateral_width)
    return Encoder(settings, size_px=size_px, image_channels=channels, layers=layers, w_dim=w_dim)


@pytest.mark.parametrize(("size_px", "channels", "layers"), [(16, 1, 6), (32, 3, 8), (64, 4, 10), (128, 1, 12)])
def test_narrow_encoder_gives_one_code_per_style_layer(size_px, channels, layers):
    encoder = narrow(size_px, channels)
    v = encoder(torch.randn(2, channels, size_px, size_px))
    assert v.shape == (2, layers, 16) and v.dtype == torch.float32


def test_codes_start_near_the_mean_latent_and_every_weight_learns_from_the_first_step():
    encoder = narrow(64)
    v = encoder(torch.randn(4, 1, 64, 64))
    assert v.abs().max() < 0.3
    v.sum().backward()
    without = [name for name, weight in encoder.named_parameters() if weight.grad is None or not weight.grad.any()]
    assert without == []


def test_each_map_feeds_its_own_layers():
    encoder = narrow(64)
    image = torch.randn(2, 1, 64, 64)
    maps = encoder.pyramid(encoder.trunk(image))
    assert [tuple(x.shape[2:]) for x in maps] == [(16, 16), (8, 8), (4, 4)]
    with evaluating(encoder):
        before = encoder(image)
        with torch.no_grad():
            encoder.heads[0].bias += 1.0  # heads on P2, the finest map
        change = (encoder(image) - before).abs().amax((0, 2))
    assert change.tolist() == pytest.approx([0.0] * 7 + [1.0] * 3, abs=1e-5)


def test_heads_are_nets_of_their_own():
    encoder = narrow(64)
    heads = encoder.heads[0]
    x = torch.randn(2, 32, 16, 16)
    before = heads(x)
    width = heads.convolutions[0].out_channels // 3
    with torch.no_grad():
        for convolution in heads.convolutions:
            convolution.weight[width : 2 * width] *= -1  # the second head's filters
    change = (heads(x) - before).abs().amax((0, 2))
    assert change[1] > 1e-5 and change[0] == 0 and change[2] == 0


def test_eval_mode_answers_do_not_depend_on_the_batch():
    encoder = narrow()
    image = torch.randn(5, 1, 32, 32)
    encoder(image)  # moves the statistics
    encoder.eval()
    assert torch.allclose(encoder(image)[:2], encoder(image[:2]), atol=1e-5)


def test_bfloat16_codes_are_close_to_float32_codes():
    encoder = narrow(64).eval()
    image = torch.rand(2, 1, 64, 64) * 2 - 1
    with torch.no_grad():
        exact = encoder(image)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = encoder(image)
    assert rough.dtype == torch.float32
    assert (rough - exact).norm() < 0.05 * exact.norm()


def test_narrow_encoder_at_64_px_costs_less_than_one_gflop():
    from torch.utils.flop_counter import FlopCounterMode

    encoder = narrow(64, lateral_width=128, w_dim=128).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        encoder(torch.zeros(1, 1, 64, 64))
    assert counter.get_total_flops() < 1e9


def test_resnet50_trunk_has_the_published_networks_keys_and_map_sizes():
    settings = EncoderSettings(trunk="resnet50", lateral_width=32)
    encoder = Encoder(settings, size_px=64, image_channels=3, layers=10, w_dim=8)
    state = encoder.trunk.network.state_dict()
    # what torchvision's resnet50 file holds, without its classifier
    assert state["conv1.weight"].shape == (64, 3, 7, 7)
    assert state["layer1.0.downsample.0.weight"].shape == (256, 64, 1, 1)
    assert "layer1.0.downsample.0.bias" not in state
    assert state["layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert sum(x.numel() for name, x in state.items() if "running" not in name and "num_" not in name) == 23_508_032
    maps = encoder.pyramid(encoder.trunk(torch.randn(2, 3, 64, 64)))
    assert [tuple(x.shape[1:]) for x in maps] == [(32, 16, 16), (32, 8, 8), (32, 4, 4)]
    assert encoder(torch.randn(2, 3, 64, 64)).shape == (2, 10, 8)


@pytest.mark.parametrize(("size_px", "layers"), [(48, 8), (8, 4), (32, 10)])
def test_sizes_and_layer_counts_that_do_not_fit_are_refused(size_px, layers):
    with pytest.raises(ValueError, match="power of two|layers"):
        Encoder(EncoderSettings(trunk="narrow"), size_px=size_px, image_channels=1, layers=layers, w_dim=8)
