import pytest
import torch
import torch.nn.functional as F
from torch import nn

from semgan.models.perceptual import LPIPS, TAPS, DirectionGap, DiscriminatorDistance, unit_channels

NETWORKS = ["vgg16", "alexnet", "squeezenet"]


def random_lpips(network: str) -> LPIPS:
    """Trained-like random weights: features stay of order one through the depth."""
    torch.manual_seed(3)
    lpips = LPIPS(network)
    for weight in lpips.trunk.parameters():
        if weight.ndim == 4:
            nn.init.normal_(weight, std=(2 / weight[0].numel()) ** 0.5)
        else:
            nn.init.uniform_(weight, -0.1, 0.1)
    return lpips


def image_pair(channels: int = 3, size_px: int = 48):
    random = torch.Generator().manual_seed(4)
    shape = (2, channels, size_px, size_px)
    return tuple(torch.rand(shape, generator=random) * 2 - 1 for _ in range(2))


def pool(x, ceil_mode=True):
    return F.max_pool2d(x, 3, 2, ceil_mode=ceil_mode)


def reference_maps(network: str, state: dict, x):
    """Zhang et al.'s feature maps in float64, written out from the published architectures."""

    def conv(number, x, stride=1, padding=1, relu=True):
        y = F.conv2d(x, state[f"{number}.weight"], state[f"{number}.bias"], stride=stride, padding=padding)
        return y.clamp_min(0) if relu else y

    def fire(number, x):
        squeezed = conv(f"{number}.squeeze", x, padding=0)
        sides = [conv(f"{number}.expand1x1", squeezed, padding=0), conv(f"{number}.expand3x3", squeezed)]
        return torch.cat(sides, 1)

    if network == "vgg16":
        maps, number = [], 0
        for block, repeats in enumerate((2, 2, 3, 3, 3)):
            if block:
                x, number = F.max_pool2d(x, 2), number + 1
            for _ in range(repeats):
                x, number = conv(number, x), number + 2
            maps.append(x)
        return maps
    if network == "alexnet":
        first = conv(0, x, stride=4, padding=2)
        second = conv(3, pool(first, False), padding=2)
        third = conv(6, pool(second, False))
        fourth = conv(8, third)
        return [first, second, third, fourth, conv(10, fourth)]
    first = conv(0, x, stride=2, padding=0)
    second = fire(4, fire(3, pool(first)))
    third = fire(7, fire(6, pool(second)))
    fourth = fire(9, pool(third))
    fifth = fire(10, fourth)
    sixth = fire(11, fifth)
    return [first, second, third, fourth, fifth, sixth, fire(12, sixth)]


def reference_distance(lpips: LPIPS, a, b):
    state = {k.removeprefix("features."): v.double() for k, v in lpips.trunk.state_dict().items()}
    shift = torch.tensor([-0.030, -0.088, -0.188], dtype=torch.float64).view(1, 3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450], dtype=torch.float64).view(1, 3, 1, 1)
    maps = [reference_maps(lpips.network, state, (x.double() - shift) / scale) for x in (a, b)]
    total = torch.zeros(len(a), dtype=torch.float64)
    for head, x, y in zip(lpips.heads, *maps, strict=True):
        x, y = (m / (m.pow(2).sum(1, keepdim=True).sqrt() + 1e-10) for m in (x, y))
        weighted = F.conv2d((x - y) ** 2, head.double().view(1, -1, 1, 1))
        total += weighted.mean((1, 2, 3))
    return total


@pytest.mark.parametrize("network", NETWORKS)
def test_lpips_equals_an_independent_float64_computation(network):
    lpips = random_lpips(network)
    a, b = image_pair()
    with torch.no_grad():
        assert torch.allclose(lpips(a, b).double(), reference_distance(lpips, a, b), rtol=2e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_lpips_equals_the_reference_package_with_the_same_random_weights(network):
    try:
        import lpips as reference_package
    except Exception as error:  # the package imports torchvision, which CPU-only torch may lack
        pytest.skip(f"reference package lpips cannot be imported: {error}")
    ours = random_lpips(network)
    name = {"vgg16": "vgg", "alexnet": "alex", "squeezenet": "squeeze"}[network]
    theirs = reference_package.LPIPS(net=name, pretrained=False, pnet_rand=True, verbose=False)
    trunk = {f"features.{key.split('.', 1)[1]}": value for key, value in theirs.net.state_dict().items()}
    ours.load_trunk(trunk)
    with torch.no_grad():
        for head, linear in zip(ours.heads, theirs.lins, strict=True):
            linear.model[-1].weight.copy_(head.view(1, -1, 1, 1))
        a, b = image_pair(size_px=64)
        assert torch.allclose(ours(a, b), theirs(a, b).flatten(), rtol=1e-5)


@pytest.mark.parametrize("network", NETWORKS)
def test_feature_maps_have_the_published_channel_counts(network):
    features = LPIPS(network).features(image_pair()[0])
    assert tuple(x.shape[1] for x in features) == TAPS[network][1]


def test_distance_to_itself_is_zero_and_to_another_image_is_positive():
    lpips = random_lpips("squeezenet")
    a, b = image_pair()
    assert lpips(a, a).abs().max() == 0
    assert (lpips(a, b) > 0).all() and lpips(a, b).shape == (2,)


def test_grey_images_count_as_rgb_with_equal_channels():
    lpips = random_lpips("squeezenet")
    a, b = image_pair(1)
    assert torch.allclose(lpips(a, b), lpips(a.repeat(1, 3, 1, 1), b.repeat(1, 3, 1, 1)), rtol=1e-5)


def test_many_channels_count_as_the_mean_over_grey_images():
    lpips = random_lpips("squeezenet")
    a, b = image_pair(4)
    singles = torch.stack([lpips(a[:, i : i + 1], b[:, i : i + 1]) for i in range(4)])
    assert torch.allclose(lpips(a, b), singles.mean(0), rtol=1e-4)


def test_zero_features_give_finite_gradients():
    x = torch.zeros(1, 4, 2, 2, requires_grad=True)
    unit_channels(x).sum().backward()
    assert x.grad.isfinite().all()


def test_distances_are_float32_and_close_under_bfloat16():
    lpips = random_lpips("squeezenet")
    a, b = image_pair()
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        rough = lpips(a, b)
    assert rough.dtype == torch.float32
    assert torch.allclose(rough, lpips(a, b), rtol=0.02)


def test_the_ruler_has_no_training_mode_and_no_trainable_weights():
    lpips = LPIPS("squeezenet").train()
    assert not lpips.training and not any(weight.requires_grad for weight in lpips.parameters())
    image = image_pair()[0].requires_grad_()
    lpips(image, image_pair()[1]).sum().backward()
    assert image.grad.abs().max() > 0


def test_images_below_a_networks_reach_are_refused_with_a_cure():
    with pytest.raises(ValueError, match="perceptual.network=vgg16"):
        LPIPS("alexnet").features(torch.zeros(1, 3, 16, 16))


def test_unknown_network_is_refused():
    with pytest.raises(ValueError, match="vgg16, alexnet, squeezenet"):
        LPIPS("resnet")  # type: ignore[arg-type]


class SmallCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, stride=2, padding=1)

    def features(self, image):
        x = self.first(image)
        return [x, self.second(torch.relu(x))]


def test_discriminator_distance_is_the_mean_over_scales_of_unit_feature_distances():
    torch.manual_seed(0)
    critic = SmallCritic()
    distance = DiscriminatorDistance(critic)
    a, b = image_pair(1, 16)
    expected = []
    for x, y in zip(critic.features(a), critic.features(b), strict=True):
        x, y = x / x.norm(dim=1, keepdim=True), y / y.norm(dim=1, keepdim=True)
        expected.append((x - y).norm(dim=1).square().mean((1, 2)))
    assert torch.allclose(distance(a, b), (expected[0] + expected[1]) / 2, rtol=1e-5)
    cached = distance.features(b)
    assert torch.equal(distance.distance(distance.features(a), cached), distance(a, b))


def test_the_gap_of_directions_and_its_gradient_are_those_of_the_formula_written_out():
    torch.manual_seed(0)
    a, b = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4)
    a[0, :, 0, 0] = 0  # a pixel without features
    a.requires_grad_()
    weights = torch.tensor([1.0, -2.0])
    found = DirectionGap.apply(a, b)
    expected = (unit_channels(a) - unit_channels(b)).square().sum(1).mean((1, 2))
    assert torch.allclose(found, expected, rtol=1e-5)
    (gradient,) = torch.autograd.grad((found * weights).sum(), a)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), a)
    assert (gradient[0, :, 0, 0] == 0).all()
    wanted[0, :, 0, 0] = 0
    assert torch.allclose(gradient, wanted, rtol=1e-4, atol=1e-7)
    coarse = DirectionGap.apply(a.bfloat16(), b.bfloat16())
    assert coarse.dtype == torch.float32 and torch.allclose(coarse, found, atol=0.02)


def test_large_float16_features_keep_a_finite_distance_and_gradient():
    class Loud(nn.Module):
        def features(self, image):
            return [image.half() * 1000]

    torch.manual_seed(0)
    image, other = torch.rand(1, 3, 64, 64) + 0.5, torch.rand(1, 3, 64, 64) + 0.5
    image.requires_grad_()
    distance = DiscriminatorDistance(Loud())
    found = distance(image, other)
    assert torch.allclose(found, DirectionGap.apply(image, other), rtol=1e-2)
    (gradient,) = torch.autograd.grad(found.sum(), image)
    assert gradient.isfinite().all()


def test_discriminator_distance_keeps_its_own_critic():
    torch.manual_seed(0)
    critic = SmallCritic()
    distance = DiscriminatorDistance(critic)
    a, b = image_pair(1, 16)
    before = distance(a, b)
    with torch.no_grad():
        critic.first.weight.mul_(-3)
    assert torch.equal(distance(a, b), before)
    assert critic.first.weight.requires_grad and critic.training
    assert not distance.train().critic.training
