import hashlib
import http.server
import logging
import threading

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from semgan.config import PerceptualSettings
from semgan.models import lpips_weights
from semgan.models.lpips_weights import HEADS, TRUNKS, Published, WeightsNotAtHand, build_perceptual, fetch, load_lpips
from semgan.models.perceptual import LPIPS, DiscriminatorDistance

CONTENT = b"weights" * 1000


class Publisher(http.server.BaseHTTPRequestHandler):
    """/whole: the content; /half: announces all of it, sends half and hangs up; anything else: 404."""

    def do_GET(self):
        if self.path not in ("/whole", "/half"):
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT)))
        self.end_headers()
        self.wfile.write(CONTENT if self.path == "/whole" else CONTENT[: len(CONTENT) // 2])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def address(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Publisher) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def unreachable(monkeypatch):
    """Every published address points where nobody listens."""
    for files in (TRUNKS, HEADS):
        for network, file in list(files.items()):
            monkeypatch.setitem(files, network, Published("http://127.0.0.1:9/", file.name, file.sha256))


def published(folder: str, name: str, content: bytes = CONTENT) -> Published:
    return Published(folder, name, hashlib.sha256(content).hexdigest())


def saved_weights(folder, network="squeezenet", kind="pth"):
    torch.manual_seed(1)
    source = LPIPS(network)
    trunk = dict(source.trunk.state_dict()) | {"classifier.1.weight": torch.zeros(3, 3)}
    heads = {f"lin{i}.model.1.weight": head.data.view(1, -1, 1, 1).clone() for i, head in enumerate(source.heads)}
    paths = folder / f"trunk.{kind}", folder / f"heads.{kind}"
    for path, state in zip(paths, (trunk, heads), strict=True):
        if kind == "pth":
            torch.save(state, path)
        else:
            save_file(state, path)
    return source, *paths


def test_a_download_arrives_under_its_name_and_is_taken_from_the_cache_afterwards(address, tmp_path):
    path = fetch(published(address, "whole"), tmp_path)
    assert path == tmp_path / "whole" and path.read_bytes() == CONTENT
    offline = published("http://127.0.0.1:9/", "whole")
    assert fetch(offline, tmp_path, download=False) == path


def test_wrong_content_is_thrown_away_with_a_clear_message(address, tmp_path):
    with pytest.raises(WeightsNotAtHand, match=r"did not come with the published content.*perceptual\.trunk_weights"):
        fetch(published(address, "whole", b"something else"), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["half", "missing"])
def test_half_and_failed_downloads_leave_nothing(address, tmp_path, name):
    with pytest.raises(WeightsNotAtHand, match="Could not download|did not come"):
        fetch(published(address, name), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_file_in_the_cache_is_fetched_again(address, tmp_path):
    (tmp_path / "whole").write_bytes(CONTENT[:10])
    assert fetch(published(address, "whole"), tmp_path).read_bytes() == CONTENT


def test_nothing_is_downloaded_where_downloads_are_off(address, tmp_path):
    with pytest.raises(WeightsNotAtHand, match="perceptual.download is off"):
        fetch(published(address, "whole"), tmp_path, download=False)


def test_published_hashes_start_with_the_digits_in_torchvisions_file_names():
    for file in TRUNKS.values():
        assert file.sha256.startswith(file.name.removesuffix(".pth").rsplit("-", 1)[1])
    for file in [*TRUNKS.values(), *HEADS.values()]:
        assert len(file.sha256) == 64 and int(file.sha256, 16)


@pytest.mark.parametrize("kind", ["pth", "safetensors"])
def test_weights_come_from_given_files(tmp_path, kind):
    source, trunk, heads = saved_weights(tmp_path, kind=kind)
    settings = PerceptualSettings(network="squeezenet", trunk_weights=trunk, head_weights=heads, download=False)
    loaded = load_lpips(settings, tmp_path)
    a, b = torch.rand(2, 1, 3, 32, 32).unbind(0)
    assert torch.equal(loaded(a, b), source(a, b))


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    _, trunk, heads = saved_weights(tmp_path, "alexnet")
    with pytest.raises(ValueError, match=r"trunk\.pth: These are no squeezenet weights"):
        load_lpips(PerceptualSettings(network="squeezenet", trunk_weights=trunk, head_weights=heads))
    _, trunk, _ = saved_weights(tmp_path, "squeezenet")
    with pytest.raises(ValueError, match=r"heads.*no LPIPS heads for squeezenet"):
        (tmp_path / "alexnet").mkdir()
        _, _, other = saved_weights(tmp_path / "alexnet", "alexnet")
        load_lpips(PerceptualSettings(network="squeezenet", trunk_weights=trunk, head_weights=other))


@pytest.mark.parametrize("name", ["bad.pth", "bad.safetensors"])
def test_a_damaged_given_file_is_an_error_in_every_mode(tmp_path, name):
    (tmp_path / name).write_bytes(b"not weights at all")
    settings = PerceptualSettings(network="squeezenet", trunk_weights=tmp_path / name, head_weights=tmp_path / name)
    with pytest.raises(ValueError, match="cannot be read as weights"):
        build_perceptual(settings, SmallCritic(), 3, tmp_path)


def test_a_pickle_that_runs_code_is_not_loaded(tmp_path):
    class Trap:
        def __reduce__(self):
            return (print, ("code ran",))

    torch.save({"x": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(ValueError, match="cannot be read as weights"):
        lpips_weights.read_weights(tmp_path / "trap.pth")


def test_a_missing_given_file_is_an_error_in_every_mode(tmp_path):
    settings = PerceptualSettings(trunk_weights=tmp_path / "none.pth", head_weights=tmp_path / "none.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        build_perceptual(settings, SmallCritic(), 3, tmp_path)


class SmallCritic(nn.Module):
    def features(self, image):
        return [image.repeat(1, 2, 1, 1)]


def test_auto_falls_back_on_the_image_critic_and_says_so(unreachable, tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        distance, description = build_perceptual(PerceptualSettings(), SmallCritic(), 1, tmp_path)
    assert isinstance(distance, DiscriminatorDistance)
    assert "not LPIPS" in description and "Could not download" in description
    assert description in caplog.text


def test_auto_takes_lpips_where_weights_are_given(tmp_path):
    _, trunk, heads = saved_weights(tmp_path)
    settings = PerceptualSettings(network="squeezenet", trunk_weights=trunk, head_weights=heads)
    distance, description = build_perceptual(settings, SmallCritic(), 1, tmp_path)
    assert isinstance(distance, LPIPS) and "LPIPS 0.1 (squeezenet, grey repeated to RGB)" in description


def test_lpips_that_was_asked_for_is_never_replaced(unreachable, tmp_path):
    with pytest.raises(WeightsNotAtHand, match="Could not download"):
        build_perceptual(PerceptualSettings(distance="lpips"), SmallCritic(), 1, tmp_path)


def test_no_weights_and_no_critic_is_an_error(unreachable, tmp_path):
    with pytest.raises(ValueError, match="no trained image critic"):
        build_perceptual(PerceptualSettings(), None, 1, tmp_path)
