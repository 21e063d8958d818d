"""The networks of the lectures, imported: depth, parameters, MACs, activations, receptive field, and published figures.

    python benchmarks/lectures.py            ends with 1 where a figure that should be equal is off

Random weights; minutes on one core. Published: parameters and multiply-accumulates as torchvision states them with its
weights, else as the papers do; receptive fields of Araujo, Norris and Sim, "Computing Receptive Fields" (2019), where
the network there is the same one.
"""

import sys
from collections.abc import Sequence

import torchvision
from torch import nn

from convfabric.graph import Graph
from convfabric.importing.network import import_network
from convfabric.importing.sources import as_it_is, original
from convfabric.operators import Size
from convfabric.report.describe import description
from convfabric.weavers import Source
from records import write_record

AUXILIARY = 3.33
"""Millions of parameters of Inception v3's classifier beside the way, which torchvision counts and no answer needs."""
NAMES: dict[str, tuple[float | None, float | None, int | None, int | None]] = {
    "lenet": (0.0617, None, 5, None),
    "torchvision:alexnet": (None, None, 8, 195),
    "zfnet": (62.4, None, 8, None),
    "nin": (None, None, 12, None),
    "torchvision:vgg16": (None, None, 16, 212),
    "torchvision:googlenet": (None, None, 22, None),
    "torchvision:inception_v3": (27.16 - AUXILIARY, 5.713, 48, 1311),
    "torchvision:resnet18": (None, None, 18, None),
    "torchvision:resnet50": (None, None, 50, None),
    "torchvision:resnet101": (None, None, 101, None),
    "torchvision:resnext50_32x4d": (None, None, 50, None),
    "timm:seresnet50": (28.1, None, None, None),
    "torchvision:densenet121": (None, None, 121, None),
    "torchvision:squeezenet1_1": (None, None, 18, None),
    "timm:legacy_xception": (22.86, None, None, None),
    "timm:mobilenetv1_100": (4.23, 0.569, 28, 315),
    "torchvision:mobilenet_v2": (None, None, 53, None),
    "torchvision:mobilenet_v3_large": (None, None, None, None),
    "torchvision:shufflenet_v2_x1_0": (None, None, None, None),
    "torchvision:mnasnet1_0": (None, None, None, None),
    "torchvision:efficientnet_b0": (None, None, None, None),
    "torchvision:regnet_y_400mf": (None, None, None, None),
    "torchvision:convnext_tiny": (None, None, None, None),
}
"""By name the published millions of parameters, thousand millions of MACs, depth and receptive field; None where
torchvision states the first two, or nobody does."""


def small(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


def conv(channels: int, made: int, kernel: int, stride: int = 1, padding: int = 0) -> list[nn.Module]:
    return [nn.Conv2d(channels, made, kernel, stride, padding), nn.ReLU()]


def lenet() -> nn.Module:
    """LeCun et al. 1998 as it is taught: 5×5 kernels, average pools, tanh."""
    first: list[nn.Module] = [nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh()]
    last: list[nn.Module] = [nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)]
    return small(*first, nn.AvgPool2d(2), nn.Flatten(), *last)


def zfnet() -> nn.Module:
    """Zeiler and Fergus 2014: AlexNet with 7×7 at stride 2 first."""
    body = [*conv(3, 96, 7, 2, 1), nn.MaxPool2d(3, 2, 1), *conv(96, 256, 5, 2), nn.MaxPool2d(3, 2, 1)]
    body += conv(256, 384, 3, 1, 1)
    body += [*conv(384, 384, 3, 1, 1), *conv(384, 256, 3, 1, 1), nn.MaxPool2d(3, 2), nn.Flatten()]
    return small(*body, nn.Linear(9216, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000))


def nin() -> nn.Module:
    """Lin et al. 2014, for ImageNet: four blocks of a convolution and two 1×1."""
    stages = ((3, 96, 11, 4, 0), (96, 256, 5, 1, 2), (256, 384, 3, 1, 1), (384, 1000, 3, 1, 1))
    body: list[nn.Module] = []
    for read, made, kernel, stride, padding in stages:
        body += [*conv(read, made, kernel, stride, padding), *conv(made, made, 1), *conv(made, made, 1)]
        body += [nn.MaxPool2d(3, 2)] if made < 1000 else [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return small(*body)


OWN = {"lenet": (lenet, (32, 32), 1), "zfnet": (zfnet, (224, 224), 3), "nin": (nin, (224, 224), 3)}


def found(name: str) -> tuple[Graph, Size]:
    """The graph of a network as it is, and the size of its images."""
    if name in OWN:
        make, size, channels = OWN[name]
        return import_network(make().eval(), size, image_channels=channels, name=name).graph, size
    size = original(name, "none").size if name.startswith("timm:") or "inception" not in name else (299, 299)
    return as_it_is(Source(network=name, numbers={"weights": "none"}), size).graph, size


def published(name: str) -> tuple[float | None, float | None]:
    """Millions of parameters and thousand millions of MACs, as torchvision states them, else as entered here."""
    library, _, model = name.partition(":")
    if library != "torchvision" or NAMES[name][0]:
        return NAMES[name][:2]
    facts = torchvision.models.get_model_weights(model)["DEFAULT"].meta
    return facts["num_params"] / 1e6, facts["_ops"]


def row(name: str) -> dict[str, object]:
    graph, size = found(name)
    facts, (parameters, macs) = description(graph, size), published(name)
    _, _, depth, field = NAMES[name]
    return {
        "network": name,
        "image": f"{size[0]}×{size[1]}",
        "M parameters": round(facts.parameters / 1e6, 3),
        "published": round(parameters, 3) if parameters else "",
        "G MACs": round(facts.macs / 1e9, 3),
        "published MACs": macs or "",
        "depth": facts.depth,
        "published depth": depth or "",
        "MB activations": round(facts.activation_bytes / 1e6, 1),
        "sees": facts.receptive_field[0] if facts.receptive_field else "all",
        "published field": field or "",
    }


def off(rows: Sequence[dict[str, object]]) -> list[str]:
    """Networks whose parameters or MACs are more than half a percent beside what is published."""
    pairs = (("M parameters", "published"), ("G MACs", "published MACs"))
    return [
        str(one["network"])
        for one in rows
        if any(
            one[theirs] and abs(float(str(one[ours])) / float(str(one[theirs])) - 1) > 0.005 for ours, theirs in pairs
        )
    ]


def main() -> None:
    rows = []
    for name in NAMES:
        rows.append(row(name))
        print(rows[-1], flush=True)
    sentences = ["Random weights. Published figures: torchvision's statements with its weights, else the papers'."]
    print(write_record("lectures", sentences, rows))
    if wrong := off(rows):
        sys.exit(f"more than 0.5 % beside what is published: {', '.join(wrong)}")


if __name__ == "__main__":
    main()
