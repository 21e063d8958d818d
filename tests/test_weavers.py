"""Families against independent implementations: torchvision's, with the same weights and the same answers."""

from dataclasses import fields
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from convfabric.errors import ArchiveError, SettingError
from convfabric.fabric.module import Fabric
from convfabric.graph import Place
from convfabric.graph.costs import costs
from convfabric.graph.rewrites import with_features
from convfabric.importing.create_model import create_model
from convfabric.weavers import FAMILIES, PRESETS, weave

LARGE = {"size": (224, 224), "classes": 1000}


@pytest.mark.parametrize(
    ("name", "numbers", "theirs"),
    [
        ("resnet-18", {}, torchvision.models.resnet18),
        ("resnet-50", {}, torchvision.models.resnet50),
        ("densenet-121", {}, torchvision.models.densenet121),
        ("vgg-16", {}, torchvision.models.vgg16),
        ("vgg", {"depth": 19, "norm": False, "top": "full"}, torchvision.models.vgg19),
    ],
)
def test_parameters_are_as_many_as_torchvision_has(name: str, numbers: dict[str, object], theirs) -> None:  # type: ignore[no-untyped-def]  # noqa: ANN001
    with torch.device("meta"):
        wanted = sum(p.numel() for p in theirs().parameters())
    assert costs(weave(name, **LARGE, **numbers), (224, 224)).parameters == wanted  # type: ignore[arg-type]


def shaken(network: nn.Module) -> nn.Module:
    """The network in evaluation mode, its norms' statistics and scales random."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return network.eval()


def test_vgg_answers_like_torchvision_s_with_the_same_weights() -> None:
    theirs = shaken(torchvision.models.vgg11(num_classes=7))
    ours = Fabric(weave("vgg", norm=False, top="full", size=(224, 224), classes=7)).eval()
    tensors = list(theirs.parameters())
    names = ["entry", *(f"edges.{edge.name}" for edge in ours.graph.edges)]
    state = ours.state_dict()
    for name, (weight, bias) in zip([*names, "head"], zip(tensors[::2], tensors[1::2], strict=True), strict=True):
        if name == "head":
            read = str(ours.graph.head.reads[0])
            state[f"heads.head.reads.{read}.weight"], state["heads.head.bias"] = weight, bias
            continue
        key = next(key for key in state if key.startswith(f"{name}.") and key.endswith("weight"))
        state[key] = weight.view_as(state[key])
        state[key.replace("weight", "bias")] = bias
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 224, 224)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


def normed_conv(state: dict[str, Tensor], ours: str, steps: tuple[int, int], conv: nn.Conv2d, norm: nn.Module) -> None:
    state[f"{ours}.steps.{steps[0]}.weight"] = conv.weight
    state |= {f"{ours}.steps.{steps[1]}.{key}": value for key, value in norm.state_dict().items()}


def test_resnet_18_answers_like_torchvision_s_with_the_same_weights() -> None:
    theirs = shaken(torchvision.models.resnet18(num_classes=7))
    ours = Fabric(weave("resnet-18", classes=7)).eval()
    state = ours.state_dict()
    state["entry.weight"] = theirs.conv1.weight
    state |= {f"nodes.L0S1.steps.0.{key}": value for key, value in theirs.bn1.state_dict().items()}
    at = Place(1, 2)
    for stage in (theirs.layer1, theirs.layer2, theirs.layer3, theirs.layer4):
        for block in stage:
            after = Place(at.layer + 1, at.scale + (block.stride == 2))
            normed_conv(state, f"edges.{at}_{after}_1", (0, 1), block.conv1, block.bn1)
            normed_conv(state, f"edges.{at}_{after}_1", (3, 4), block.conv2, block.bn2)
            if block.downsample is not None:
                normed_conv(state, f"edges.{at}_{after}", (0, 1), *block.downsample)
            at = after
    state[f"heads.head.reads.{at}.weight"], state["heads.head.bias"] = theirs.fc.weight, theirs.fc.bias
    ours.load_state_dict(state)
    images = torch.randn(2, 3, 96, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(images), theirs(images), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("vgg", {"depth": 12}, "depth=12: a VGG has 11, 13, 16, 19 layers"),
        ("resnet", {"blocks": ()}, r"blocks=\(\): each stage has at least one block"),
        ("nin", {"channels": 1}, "channels=1: a NiN has at least 2"),
        ("msdnet", {"growth": 3, "factors": (1, 1)}, "growth=3"),
        ("trellis", {"shared": True, "doubling": True, "operators": "block"}, "plain and banded edges can share"),
        ("trellis", {"reach": 9}, "reach=9, layers=8: no layer is so far away"),
        (
            "trellis",
            {"down": "pooled", "operators": "banded"},
            "down=pooled, operators=banded: banded edges move along",
        ),
        ("trellis", {"leap": 6}, "leap=6, scales=6: no scale is so far away"),
        ("trellis", {"operators": "banded", "distances": [64]}, "channels=64: no channel is so far away"),
        ("trellis", {"inner": 0.0}, "inner=0.0: give at least 0.01"),
        ("trellis", {"leap": 2, "doubling": True, "operators": "banded"}, "a band joins equal channels"),
        ("googlenet", {"over": 32}, "over=32: the narrowest layer has 16 channels"),
        ("unet", {"width": 3}, "width: unet has scales, channels, up, norm"),
        ("resnet", {"blocks": 3}, "blocks=3: expected a list such as"),
        ("resnet", {"channels": "8"}, "channels=8: expected int"),
        ("vgg", {"top": "foo"}, "top=foo: expected full, global max, linear"),
        ("unet", {"task": "seg"}, "task=seg: expected classification, segmentation"),
        ("unet", {"classes": 0}, "at least 2 classes"),
        ("gridnet", {"dropout": 3.0}, "network=gridnet: p=3.0"),
        ("msdnet", {"factors": ()}, "every number but hidden is at least 1"),
        ("nin", {"prior": "column-0"}, "groups=0: at least 1"),
        ("densenet", {"size": (2, 2)}, "densenet halves images 2 times, which would shrink 2×2 below one pixel"),
    ],
)
def test_numbers_that_make_no_network_are_refused(name: str, numbers: dict[str, object], said: str) -> None:
    with pytest.raises(SettingError, match=said):
        weave(name, **numbers)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, -1])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_count_of_none_makes_a_network_or_is_refused_by_name(family: str, count: int) -> None:
    row = FAMILIES[family]
    for part in fields(row.numbers):
        if type(getattr(row.numbers(), part.name)) is int:
            try:
                weave(family, **{**row.specimen, part.name: count})
            except SettingError as fault:
                assert f"{part.name}={count}" in str(fault)  # noqa: PT017
            else:
                assert count == 0


def test_every_number_of_a_family_has_a_default_and_every_name_is_free() -> None:
    for family in FAMILIES.values():
        assert family.numbers() == family.numbers()
    assert not set(FAMILIES) & set(PRESETS)


def test_segmentation_and_classification_share_their_weights_where_they_share_edges() -> None:
    one, other = (weave("gridnet", channels=2, streams=2, task=task) for task in ("classification", "segmentation"))  # type: ignore[arg-type]
    assert one.edge_names < other.edge_names


@pytest.mark.parametrize("name", FAMILIES)
def test_features_are_the_last_response_of_each_scale(name: str) -> None:
    graph = weave(name, size=(64, 64))
    features = with_features(graph)
    by_scale = {place.scale: place for place in graph.order}
    for place in features.head.reads:
        later = [p for p in graph.order[graph.order.index(place) + 1 :] if p.scale == place.scale]
        assert not later or by_scale[place.scale] in {p for head in graph.heads for p in head.reads if not head.linear}


def test_features_of_a_densenet_are_its_concatenations() -> None:
    encoder = create_model("densenet", features_only=True, blocks=(2, 2), growth=4)
    assert encoder.feature_info.channels() == [16, 16]


def test_a_model_is_refused_in_words_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="0 classes, 3 image channels and size"):
        create_model("fabric-tiny", num_classes=0)
    with pytest.raises(SettingError, match="size=big: give WIDTHxHEIGHT in pixels"):
        create_model("fabric-tiny", size="big")
    fabric = create_model("fabric-tiny", size="32x16")
    assert fabric(torch.zeros(1, 3, 16, 32)).shape == (1, 10)
    (tmp_path / "graph.json").touch()
    with pytest.raises(ArchiveError, match=r"graph\.json"):
        create_model(str(tmp_path))


def test_enet_with_relu_is_enet_without_the_slopes() -> None:
    published, quicker = (weave("enet", task="segmentation", activation=name) for name in ("prelu", "relu"))
    state, without = Fabric(published).state_dict(), Fabric(quicker).state_dict()
    slopes = state.keys() - without.keys()
    assert all(state[name].ndim == 1 for name in slopes)
    assert len(slopes) == 67
    assert costs(published, (64, 48)).macs == costs(quicker, (64, 48)).macs


def test_an_unknown_activation_of_enet_is_refused() -> None:
    with pytest.raises(SettingError, match="activation"):
        weave("enet", activation="gelu")
