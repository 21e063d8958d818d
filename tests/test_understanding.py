"""What a network sees and responds to, against plainer computations."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from convfabric.data.imageset import HeldSplit, ImageSet, Preprocessing
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.receptive_fields import receptive_fields
from convfabric.report.responses import understood
from convfabric.understanding.covariance import inter_layer_covariance
from convfabric.understanding.strongest_patches import Patch, deconvolved, strongest_patches
from convfabric.weavers import Trellis, weave, weave_trellis


def noise(count: int = 40, side: int = 16) -> ImageSet:
    dice = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=dice)
    split = HeldSplit(images, torch.arange(count) % 3)
    preprocessing = Preprocessing(size=(side, side), channels=3, fitting="cover", mean=(0.5,) * 3, std=(0.25,) * 3)
    splits = {"train": split, "val": split}
    return ImageSet(
        name="noise", task="classification", classes=("a", "b", "c"), preprocessing=preprocessing, splits=splits
    )


def positive(graph: Graph) -> Fabric:
    """A fabric through which every pixel that is read makes a difference."""
    fabric = Fabric(graph).eval()
    for parameter in fabric.parameters():
        parameter.data.abs_().add_(0.01)
    return fabric


CASES = {
    "vgg": weave("vgg", channels=2, depth=11, size=(64, 64)),
    "nin": weave("nin", channels=4),
    "resnet": weave("resnet", channels=2, blocks=(1, 1)),
    "googlenet": weave("googlenet", over=16, size=(64, 64)),
    "msdnet": weave("msdnet", exits=2, base=1, channels=2, growth=2),
    "trellis": weave_trellis(Trellis(layers=3, scales=2, channels=2)),
    "unet": weave("unet", channels=2, scales=3, task="segmentation"),
}


@pytest.mark.parametrize("name", CASES)
def test_receptive_fields_are_what_gradients_reach(name: str) -> None:
    torch.manual_seed(0)
    graph = CASES[name]
    fabric, fields = positive(graph), receptive_fields(graph)
    rises = any(edge.source.scale > edge.target.scale for edge in graph.edges)
    images = torch.rand(32, 3, 256, 256, requires_grad=True)
    """So many that behind pools, too, the outermost pixels are the largest for some."""
    for place in graph.order[:: max(1, len(graph.order) // 3)]:
        field = fields[place]
        if field.height > 200:
            continue
        response = fabric.forward_features(images, (place,))[str(place)]
        spot = 128 // field.stride
        (grad,) = torch.autograd.grad(response[:, :, spot, spot].sum(), images)
        for axis, (before, after) in ((3, (field.above, field.below)), (2, (field.left, field.right))):
            touched = grad.abs().sum((0, 1, axis)).nonzero().flatten()
            found = spot * field.stride - int(touched.min()), int(touched.max()) - spot * field.stride
            if rises:
                assert found[0] <= before
                assert found[1] <= after
            else:
                assert found == (before, after), place


def test_behind_a_global_pool_a_pixel_sees_everything() -> None:
    graph = weave("vgg", channels=2, top="global max", hidden=4)
    assert receptive_fields(graph)[graph.head.reads[0]].height == math.inf


def covariance_by_hand(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Whiten each side by its eigenvectors, then multiply: section 5.5 of the facts, as it stands there."""
    count = first.shape[1]

    def whitened(x: np.ndarray) -> np.ndarray:
        x = x - x.mean(1, keepdims=True)
        values, vectors = np.linalg.eigh(x @ x.T)
        return np.sqrt(count - 1) * (vectors / np.sqrt(values)) @ vectors.T @ x

    return whitened(first) @ whitened(second).T / (count - 1)


def test_covariance_is_that_of_whitened_responses() -> None:
    torch.manual_seed(0)
    fabric, data = Fabric(weave("nin", channels=8, size=(16, 16))).eval(), noise()
    first, second = Place(2, 0), Place(3, 1)
    found = inter_layer_covariance(fabric, data, first, second)
    with torch.no_grad():
        images = data.preprocessing.normalised(data.splits["train"].images_BCHW)  # type: ignore[attr-defined]
        responses = fabric.forward_features(images, (first, second))
    fine = responses[str(first)].double()
    coarse = F.interpolate(responses[str(second)].double(), size=fine.shape[-2:], mode="nearest")
    flat = [r.transpose(0, 1).flatten(1).numpy() for r in (fine, coarse)]
    np.testing.assert_allclose(found.numpy(), covariance_by_hand(*flat), atol=1e-6)


def test_a_layer_goes_with_itself_channel_by_channel() -> None:
    torch.manual_seed(0)
    fabric = Fabric(weave("nin", channels=8, size=(16, 16))).eval()
    found = inter_layer_covariance(fabric, noise(), Place(1, 0), Place(1, 0))
    torch.testing.assert_close(found, torch.eye(len(found), dtype=torch.float64), atol=1e-6, rtol=0)


def test_strongest_patches_are_where_the_response_is_largest() -> None:
    torch.manual_seed(0)
    fabric, data, place = Fabric(weave("nin", channels=4, size=(16, 16))).eval(), noise(), Place(3, 1)
    found = strongest_patches(fabric, data, place, count=3)
    with torch.no_grad():
        images = data.preprocessing.normalised(data.splits["val"].images_BCHW)  # type: ignore[attr-defined]
        responses = fabric.forward_features(images, (place,))[str(place)]
    for channel, patches in enumerate(found):
        largest = responses[:, channel].flatten(1).amax(1).sort(descending=True).values[:3]
        assert [patch.response for patch in patches] == pytest.approx(largest.tolist(), rel=1e-4)
        for patch in patches:
            here = float(responses[patch.image, channel, patch.row, patch.column])
            assert here == pytest.approx(patch.response, rel=1e-4)
            top, bottom, left, right = patch.box
            assert 0 <= top < bottom <= 16
            assert 0 <= left < right <= 16


def test_deconvolution_leads_back_through_rectified_steps() -> None:
    torch.manual_seed(0)
    fabric = Fabric(weave_trellis(Trellis(layers=2, scales=1, channels=3))).eval()
    image, patch = torch.randn(3, 8, 8), Patch(image=0, row=4, column=4, response=1.0, box=(0, 8, 0, 8))
    found = deconvolved(fabric, image, Place(1, 0), 2, patch)
    signal = torch.zeros(1, 3, 8, 8)
    signal[0, 2, 4, 4] = 1.0
    for weight in (fabric.edges["L0S0_L1S0"].get_parameter("weight"), fabric.entry.get_parameter("weight")):
        scale = (1 + 1e-5) ** -0.5
        signal = F.conv_transpose2d(signal.clamp_min(0) * scale, weight.detach(), padding=1)
    torch.testing.assert_close(found, signal[0], atol=1e-6, rtol=1e-4)
    usual = torch.nn.functional.relu(torch.tensor(-1.0, requires_grad=True))
    assert usual.requires_grad, "outside, a ReLU is a ReLU"


@pytest.mark.parametrize("name", ["msdnet", "vgg"])
def test_every_section_of_the_gallery_has_its_pictures(name: str) -> None:
    numbers = {"msdnet": {"exits": 2, "base": 1}, "trellis": {"scales": 3, "channels": 4}, "vgg": {"channels": 4}}
    torch.manual_seed(0)
    fabric = Fabric(weave(name, size=(16, 16), classes=3, **numbers[name])).eval()  # type: ignore[arg-type]
    sections = list(understood(fabric, noise()))
    assert sections[0][2].startswith("<svg")
    assert sum("responds to" in title for title, _, _ in sections) == 4
    assert sections[-1][0] == "Covariance between layers"
    assert all("data:image/png" in content for _, _, content in sections[1:])


def test_gallery_command_writes_one_page_and_replaces_none(tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from convfabric.cli.commands import app
    from convfabric.weavers import FAMILIES

    out = tmp_path / "gallery.html"
    assert CliRunner().invoke(app, ["gallery", "--out", str(out)]).exit_code == 0
    assert out.read_text().count("<svg") == len(FAMILIES)
    assert CliRunner().invoke(app, ["gallery", "--out", str(out)]).exit_code != 0
