"""Networks for segmentation against their published layers, counted here from the papers and their authors' files."""

from itertools import pairwise

import pytest
import torch
import torchvision
from torch.nn import functional as F

from convfabric.fabric.module import Fabric
from convfabric.graph import Place
from convfabric.graph.costs import costs
from convfabric.operators import Conv, Identity, Pool, Relu, pointwise
from convfabric.weavers import Draft, Purpose, weave

VGG = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
UP = [512, 512, 512, 512, 512, 256, 256, 256, 128, 128, 64]
"""Channels of the convolutions of a VGG-16, and of its mirror image up to the last two."""


def convolved(*channels: int, kernel: int = 9, bias: bool = True) -> int:
    """Weights of convolutions one after another, with so many pixels in a kernel."""
    return sum(kernel * one * other + bias * other for one, other in pairwise(channels))


def normed(*channels: int) -> int:
    return 2 * sum(channels)


def unet() -> int:
    """For grey images and two classes: 64 to 1,024 channels, no norms."""
    down = convolved(1, 64, 64, 128, 128, 256, 256, 512, 512, 1024, 1024)
    up = sum(convolved(2 * n, n, kernel=4) + convolved(2 * n, n, n) for n in (512, 256, 128, 64))
    return down + up + convolved(64, 2, kernel=1)


def fcn() -> int:
    """FCN-8s for 21 classes; the last enlargement is fixed."""
    top = convolved(512, 4096, kernel=49) + convolved(4096, 4096, 21, kernel=1)
    skips = convolved(512, 21, kernel=1) + convolved(256, 21, kernel=1)
    return convolved(3, *VGG) + top + skips + 2 * convolved(21, 21, kernel=16, bias=False)


def segnet() -> int:
    """For the 11 classes of CamVid."""
    return convolved(3, *VGG, *UP, 64, 11) + normed(*VGG, *UP, 64)


def deconvnet() -> int:
    """For 21 classes."""
    hidden = convolved(512, 4096, kernel=49) + convolved(4096, 4096, kernel=1) + convolved(4096, 512, kernel=49)
    convolutions = convolved(3, *VGG) + convolved(512, *UP, 64, 64) + convolved(64, 21, kernel=1)
    return convolutions + hidden + normed(*VGG, 4096, 4096, 512, *UP, 64, 64)


def linknet() -> int:
    """For 20 classes, on a ResNet-18."""
    with torch.device("meta"):
        encoder = torchvision.models.resnet18()
    down = sum(p.numel() for name, p in encoder.named_parameters() if not name.startswith("fc."))
    up = sum(
        convolved(n, n // 4, kernel=1) + convolved(n // 4, n // 4) + convolved(n // 4, m, kernel=1)
        for n, m in ((512, 256), (256, 128), (128, 64), (64, 64))
    )
    norms = normed(128, 128, 256, 64, 64, 128, 32, 32, 64, 16, 16, 64, 32, 32)
    return down + up + norms + convolved(64, 32, 32) + convolved(32, 20, kernel=4)


def enet(classes: int = 12) -> int:
    """Slopes in the encoder, none in the decoder; shortcuts without weights but where maps become larger."""

    def block(before: int, after: int, middle: str = "3×3", entering: int = 1, slopes: bool = True) -> int:
        inner = after // 4
        kernels = convolved(before, inner, kernel=entering, bias=False) + convolved(inner, after, kernel=1, bias=False)
        rows_and_columns = convolved(inner, inner, kernel=5, bias=False) + convolved(inner, inner, kernel=5)
        kernels += rows_and_columns if middle == "5×1" else convolved(inner, inner)
        return kernels + normed(inner, inner, after) + slopes * (2 * inner + after)

    eight = 6 * block(128, 128) + 2 * block(128, 128, "5×1")
    encoder = convolved(3, 13) + normed(16) + 16 + block(16, 64, entering=4) + 4 * block(64, 64)
    encoder += block(64, 128, entering=4) + 2 * eight
    decoder = block(128, 64, slopes=False) + 2 * block(64, 64, slopes=False)
    decoder += block(64, 16, slopes=False) + block(16, 16, slopes=False)
    shortcuts = convolved(128, 64, kernel=1, bias=False) + convolved(64, 16, kernel=1, bias=False) + normed(64, 16)
    return encoder + decoder + shortcuts + convolved(16, classes, kernel=4)


PUBLISHED = [
    ("unet", {"norm": False, "channels": 64, "image_channels": 1}, 2, unet(), 31.03),
    ("fcn", {"norm": False}, 21, fcn(), 134.4),
    ("segnet", {}, 11, segnet(), 29.45),
    ("segnet", {"hidden": 4096}, 21, deconvnet(), 251.8),
    ("linknet", {}, 20, linknet(), 11.54),
    ("enet", {}, 12, enet(), 0.364),
]
"""Family, numbers, classes, parameters, and the millions that papers or their readers state."""


@pytest.mark.parametrize(("family", "numbers", "classes", "parameters", "millions"), PUBLISHED)
def test_parameters_are_as_many_as_published(
    family: str, numbers: dict[str, object], classes: int, parameters: int, millions: float
) -> None:
    graph = weave(family, task="segmentation", classes=classes, **numbers)  # type: ignore[arg-type]
    assert costs(graph, (64, 64)).parameters == parameters
    assert parameters == pytest.approx(millions * 1e6, rel=2e-3)


@pytest.mark.parametrize("size", [(8, 8), (7, 5)])
def test_values_go_back_to_where_a_pool_found_its_own(size: tuple[int, int]) -> None:
    fabric, (fine, unpooled) = unpooling(size)
    images = torch.randn(2, 3, *size)
    with torch.no_grad():
        responses = fabric.forward_features(images, [fine, unpooled])
    map_BCHW, found = responses[str(fine)], responses[str(unpooled)]
    assert (map_BCHW == 0).float().mean() > 0.2  # so that several pixels of a cell are the largest
    even = F.pad(map_BCHW, (0, size[1] % 2, 0, size[0] % 2), value=float("-inf"))
    wanted = F.max_unpool2d(*F.max_pool2d(even, 2, return_indices=True), 2)[..., : size[0], : size[1]]
    torch.testing.assert_close(found, wanted)


def unpooling(size: tuple[int, int]) -> tuple[Fabric, tuple[Place, Place]]:
    """A fabric that pools and unpools, the place of the map that is pooled, and that of the one unpooled."""
    draft = Draft("pair", Purpose(size=size))
    fine = draft.enter(Place(0, 0), Conv(), 6, then=Relu())
    coarse = draft.put(Place(1, 1), 6, (fine, Pool()), then=Identity())
    unpooled = draft.unpool(Place(2, 0), coarse, fine)
    draft.answer(draft.put(Place(3, 0), 5, (unpooled, pointwise())))
    return Fabric(draft.finished()).eval(), (fine, unpooled)
