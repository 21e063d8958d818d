"""Graphs by name: the papers' own, and the ones a user gets by default."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from math import log2
from types import MappingProxyType
from typing import Any, Literal

from convfabric.errors import ConvfabricError, GraphError, SettingError
from convfabric.graph import POINT, Graph, Task
from convfabric.graph.rewrites import with_prior
from convfabric.operators import Size
from convfabric.setting_values import accepted
from convfabric.weavers.alexnet import Alexnet
from convfabric.weavers.builder import Purpose
from convfabric.weavers.densenet import Densenet
from convfabric.weavers.families import FAMILIES, weave_numbers
from convfabric.weavers.imported import Imported, is_imported
from convfabric.weavers.msdnet import Msdnet
from convfabric.weavers.resnet import Resnet
from convfabric.weavers.trellis_numbers import Trellis
from convfabric.weavers.vgg import Vgg


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Numbers of a family by name, with the images they are for unless told otherwise."""

    about: str
    numbers: Any
    """A record of one of the families."""
    size: Size = (32, 32)
    image_channels: int = 3
    classes: int = 10
    task: Task = "classification"
    for_masks: Any = None
    """Numbers for segmentation, where they are others."""
    coarsest: int = 0
    """Pixels on a side that the coarsest scale has at least, to which scales are fitted; 0: they stay as they are."""
    training: Mapping[str, Any] = field(default_factory=dict)
    """Settings of training that are the usual ones for it."""


def _every_scale(layers: int, scales: int, channels: int) -> Trellis:
    return Trellis(layers=layers, scales=scales, channels=channels, doubling=True, operators="residual", head="all")


def _fabric(about: str, layers: int, scales: int, channels: int, lr: float) -> Preset:
    numbers, training = _every_scale(layers, scales, channels), {"subnetworks": 1, "lr": lr}
    return Preset(about=about, numbers=numbers, coarsest=1, training=training)


def _paper(layers: int, channels: int, scales: int = 6, operators: Literal["plain", "banded"] = "plain") -> Trellis:
    return Trellis(layers=layers, scales=scales, channels=channels, operators=operators)


def _photographs(about: str, numbers: Any) -> Preset:
    return Preset(about=about, numbers=numbers, size=(224, 224), classes=1000)


_MSDNET_LARGE = Msdnet(base=7, step=7, channels=32, growth=16, factors=(1, 2, 4, 4), stem="large", hidden=0)

AUTO = "auto"
"""The preset that stands for the fabric of a ladder that a budget picks; without a budget for the usual one."""
PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        AUTO: Preset(
            about="the default, as large as the budget asks for: scale by scale; for masks every scale in every layer",
            numbers=Trellis(
                layers=2, delay=2, scales=5, channels=16, doubling=True, operators="shortcut", head="all", down="pooled"
            ),
            for_masks=_every_scale(2, 3, 16),
            coarsest=4,
            training={"lr": 0.2, "finalists": 3},
        ),
        "fabric-tiny": _fabric("minutes on a CPU, images of 8 to 32 pixels", 4, 3, 12, lr=0.2),
        "fabric-small": _fabric("for hundreds to thousands of images", 2, 3, 16, lr=0.2),
        "fabric-medium": _fabric("when a GPU is at hand and images are many", 8, 4, 24, lr=0.1),
        "paper-mnist-dense": Preset(about="NIPS 2016, MNIST 0.33 % error", numbers=_paper(8, 64), image_channels=1),
        "paper-mnist-narrow": Preset(
            about="the same wiring with 32 channels, for a CPU", numbers=_paper(8, 32), image_channels=1
        ),
        "paper-mnist-sparse": Preset(
            about="NIPS 2016, MNIST 0.48 % error", numbers=_paper(16, 32, operators="banded"), image_channels=1
        ),
        "paper-cifar10-dense": Preset(about="NIPS 2016, CIFAR-10 7.43 % error", numbers=_paper(8, 128)),
        "paper-cifar10-sparse": Preset(
            about="NIPS 2016, the sparse fabric for CIFAR-10", numbers=_paper(16, 64, operators="banded")
        ),
        "paper-part-labels-dense": Preset(
            about="NIPS 2016, Part Labels 95.63 % of super-pixels",
            numbers=_paper(8, 64, scales=9),
            size=(256, 256),
            classes=3,
            task="segmentation",
        ),
        "paper-part-labels-sparse": Preset(
            about="NIPS 2016, Part Labels 95.58 % of super-pixels",
            numbers=_paper(8, 16, scales=9, operators="banded"),
            size=(256, 256),
            classes=3,
            task="segmentation",
        ),
        "resnet-20": Preset(about="He et al. 2015, for 32×32 images", numbers=Resnet()),
        "resnet-18": _photographs(
            "He et al. 2015, for photographs", Resnet(blocks=(2, 2, 2, 2), channels=64, stem="large")
        ),
        "resnet-50": _photographs(
            "He et al. 2015, for photographs",
            Resnet(blocks=(3, 4, 6, 3), channels=64, block="bottleneck", stem="large"),
        ),
        "densenet-121": _photographs(
            "Huang et al. 2017, for photographs", Densenet(blocks=(6, 12, 24, 16), growth=32, stem="large")
        ),
        "alexnet-2012": _photographs(
            "Krizhevsky et al. 2012, two groups of filters", Alexnet(stem="large", pools="published")
        ),
        "vgg-16": _photographs("Simonyan & Zisserman 2015", Vgg(depth=16, norm=False, top="full")),
        "msdnet-small": Preset(about="five exits, for 32×32 images", numbers=Msdnet()),
        "msdnet-large": _photographs("Huang et al. 2018, five exits, for photographs", _MSDNET_LARGE),
    }
)
DEFAULT = AUTO
OF_IMPORTED: Mapping[str, Any] = MappingProxyType(
    {
        "lr": 0.05,
        "trunk_lr": 0.2,
        "heads_first": 0.1,
        "subnetworks": 1,
        "subnetworks_from": 0.5,
        "finalists": 3,
        "finetune_most": 6.0,
    }
)
"""Usual training of networks that come with weights."""
OF_KEPT: Mapping[str, Any] = MappingProxyType({"lr": 0.01, "trunk_lr": 1.0, "heads_first": 0.0})
"""What is otherwise where their classifier is kept as well."""


def find_preset(name: str) -> Preset:
    """The preset of a name, or a family with its default numbers; SettingError names the nearest ones.

    >>> find_preset("fabric-small").numbers.layers, find_preset("unet").numbers.scales
    (2, 5)
    """
    if is_imported(name):
        about = f"{name.partition(':')[2]} of {name.partition(':')[0]}"
        return Preset(about=about, numbers=Imported(), size=(224, 224), training=OF_IMPORTED)
    if name in FAMILIES:
        return Preset(about=FAMILIES[name].about, numbers=FAMILIES[name].numbers())
    if name not in PRESETS:
        known = [*PRESETS, *FAMILIES]
        near = get_close_matches(name, known, n=1)
        meant = f" Did you mean {near[0]}?" if near else ""
        others = ", and torchvision:NAME, timm:NAME, file:FILE.pt2, file:FILE.onnx and run:FOLDER"
        raise SettingError(f"network={name}: known are {', '.join(known)}{others}.{meant}")
    return PRESETS[name]


def weave(
    name: str = DEFAULT,
    *,
    size: Size | None = None,
    image_channels: int | None = None,
    classes: int | None = None,
    task: Task | None = None,
    prior: str = "",
    **numbers: Any,
) -> Graph:
    """The graph of a preset or a family, fitted to images of a size (pixels) and to a task.

    ``prior`` rewrites its kernels, see :func:`convfabric.graph.rewrites.with_prior`. Further keywords replace
    single numbers of the family's record. Raises SettingError for an
    unknown name or number, and for more scales than the images carry.

    >>> weave("fabric-small", size=(224, 224), classes=3).entry.place
    Place(layer=0, scale=2, lane=0)
    >>> len(weave("unet", task="segmentation", scales=3).nodes)
    14
    """
    preset = find_preset(name)
    if isinstance(preset.numbers, Imported):
        raise SettingError(f"network={name}: networks of others are read by convfabric.import_network, not woven.")
    given = {"task": task, "classes": classes, "image_channels": image_channels, "size": size}
    usual = {key: getattr(preset, key) for key in given}
    purpose = Purpose(**accepted(Purpose, usual | {key: value for key, value in given.items() if value is not None}))
    record = numbers_for(preset, purpose.task, purpose.size)
    known = [field.name for field in fields(record)]
    if unknown := sorted(set(numbers) - set(known)):
        raise SettingError(f"{', '.join(unknown)}: {name} has {', '.join(known)}.")
    record = replace(record, **accepted(type(record), numbers))
    counts = {key: value for key, value in numbers.items() if type(value) is int}
    if below := [f"{key}={value}" for key, value in counts.items() if value < 0]:
        raise SettingError(f"{below[0]}: give 0 or more.")
    if isinstance(record, Trellis):
        check_scales(record, purpose.size)
    try:
        woven = weave_numbers(record, purpose, name)
    except ValueError as fault:
        if isinstance(fault, GraphError) and 0 in counts.values():
            none = next(key for key, value in counts.items() if value == 0)
            raise SettingError(f"{none}=0: a {name} without is no network; give at least 1.") from None
        if isinstance(fault, ConvfabricError):
            raise
        raise SettingError(f"network={name}: {fault}") from None
    graph = check_fits(woven, purpose.size)
    return with_prior(graph, prior) if prior else graph


def numbers_for(preset: Preset, task: Task, size: Size) -> Any:
    """Numbers of a preset for a task and images of a size.

    >>> numbers_for(find_preset(AUTO), "classification", (32, 32)).scales
    4
    """
    if task == "segmentation" and preset.for_masks:
        return fitted(preset.for_masks, size)
    return fitted(preset.numbers, size, preset.coarsest) if preset.coarsest else preset.numbers


def fitted(numbers: Trellis, size: Size, coarsest: int = 1) -> Trellis:
    """The trellis that starts where images of this size have some 48 pixels, with no scale of fewer than so many.

    >>> fitted(Trellis(scales=4), (240, 180)).finest, fitted(Trellis(scales=4), (4, 4)).scales
    (2, 3)
    """
    finest = max(0, round(log2(min(size) / 48)))
    most = max(1, most_scales((min(size) // coarsest,) * 2) - finest)
    return replace(numbers, finest=finest, scales=min(numbers.scales, most))


def most_scales(size: Size) -> int:
    """Scales that images of this size carry before a side falls below one pixel.

    >>> most_scales((32, 32)), most_scales((8, 9))
    (6, 4)
    """
    return int(log2(min(size))) + 1


def check_scales(trellis: Trellis, size: Size) -> None:
    """Raises SettingError where a trellis has more scales than images of a size carry.

    >>> check_scales(Trellis(scales=3), (8, 8))
    """
    if trellis.finest + trellis.scales > most_scales(size):
        raise SettingError(
            f"scales={trellis.scales} from scale {trellis.finest} would shrink {size[0]}×{size[1]} images below one "
            f"pixel. Images of {min(size)} pixels carry at most {most_scales(size)} scales."
        )


def check_fits(graph: Graph, size: Size) -> Graph:
    """The graph itself; SettingError where its coarsest maps would be smaller than one pixel.

    >>> check_fits(weave("unet", scales=3), (8, 8)).name
    'unet'
    """
    deepest = max(node.place.scale for node in graph.nodes if node.place.scale < POINT)
    if deepest >= most_scales(size):
        raise SettingError(
            f"network={graph.name} halves images {deepest} times, which would shrink {size[0]}×{size[1]} below one "
            f"pixel. It needs at least {2**deepest} pixels on a side."
        )
    return graph
