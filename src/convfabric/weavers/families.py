"""The families of networks: for each the numbers it takes and the function that weaves it. One row a family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Any

from convfabric.graph import Graph
from convfabric.graph.rewrites import with_boxes
from convfabric.weavers.alexnet import Alexnet, weave_alexnet
from convfabric.weavers.bsn import BudgetedTrellis, ResnetFabric, weave_budgeted_trellis, weave_resnet_fabric
from convfabric.weavers.builder import Purpose
from convfabric.weavers.context import Context, weave_context
from convfabric.weavers.densenet import Densenet, weave_densenet
from convfabric.weavers.enet import Enet, weave_enet
from convfabric.weavers.fcn import Fcn, weave_fcn
from convfabric.weavers.googlenet import Googlenet, weave_googlenet
from convfabric.weavers.gridnet import Gridnet, weave_gridnet
from convfabric.weavers.lenet import Lenet, weave_lenet
from convfabric.weavers.linknet import Linknet, weave_linknet
from convfabric.weavers.msdnet import Msdnet, weave_msdnet
from convfabric.weavers.nin import Nin, weave_nin
from convfabric.weavers.resnet import Resnet, weave_resnet
from convfabric.weavers.segnet import Segnet, weave_segnet
from convfabric.weavers.squeeze_excite import SqueezeExcite, weave_squeeze_excite
from convfabric.weavers.trellis import weave_trellis
from convfabric.weavers.trellis_numbers import Trellis
from convfabric.weavers.unet import Unet, weave_unet
from convfabric.weavers.vgg import Vgg, weave_vgg


@dataclass(frozen=True)
class Family:
    """Networks that one weaver makes."""

    about: str
    numbers: type
    """A frozen record with a default for every number."""
    weave: Callable[[Any, Purpose, str], Graph]
    specimen: Mapping[str, Any]
    """Numbers of a small one, which every contract is tried on."""


FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "trellis": Family(
            "every scale in every layer: the fabric of NIPS 2016",
            Trellis,
            weave_trellis,
            {"channels": 4, "scales": 3, "layers": 3},
        ),
        "gridnet": Family(
            "streams of several sizes, columns down, then up",
            Gridnet,
            weave_gridnet,
            {"channels": 3, "streams": 3, "down": 2, "up": 2},
        ),
        "msdnet": Family(
            "dense at several scales, a classifier after each block",
            Msdnet,
            weave_msdnet,
            {"exits": 3, "base": 2, "step": 1, "channels": 4, "growth": 4, "hidden": 6},
        ),
        "unet": Family("down, up, and side by side at each scale", Unet, weave_unet, {"channels": 3, "scales": 3}),
        "fcn": Family(
            "a VGG over the whole image, scores raised and added",
            Fcn,
            weave_fcn,
            {"channels": 3, "depth": 11, "hidden": 8},
        ),
        "segnet": Family("a VGG and its mirror image", Segnet, weave_segnet, {"channels": 3, "depth": 11}),
        "linknet": Family(
            "a ResNet down, narrow blocks up, added", Linknet, weave_linknet, {"channels": 4, "blocks": (1, 1, 1)}
        ),
        "enet": Family(
            "early halving, dilated blocks, a small decoder", Enet, weave_enet, {"channels": 4, "repeats": 1}
        ),
        "context": Family(
            "for masks: dilated blocks at an eighth of the size, every scale read",
            Context,
            weave_context,
            {"channels": 4, "early": 1, "dilations": (1, 2), "repeats": 1, "surround": True},
        ),
        "lenet": Family("LeNet-5: trained pools, a layer that reads by a table", Lenet, weave_lenet, {"hidden": 8}),
        "alexnet": Family(
            "large kernels first, filter groups, two hidden layers",
            Alexnet,
            weave_alexnet,
            {"channels": 6, "hidden": 0, "stem": "small", "pools": "padded"},
        ),
        "vgg": Family("3×3 convolutions, half the size, double the width", Vgg, weave_vgg, {"channels": 3}),
        "nin": Family("5×5 and 3×3 convolutions, each followed by 1×1", Nin, weave_nin, {"channels": 6}),
        "googlenet": Family(
            "1×1, 3×3, 5×5 and a pool side by side", Googlenet, weave_googlenet, {"over": 16, "exits": True}
        ),
        "resnet": Family(
            "shortcuts beside blocks, each its own edge", Resnet, weave_resnet, {"channels": 4, "blocks": (2, 2)}
        ),
        "se-resnet": Family(
            "a ResNet whose channels are multiplied by what all pixels say",
            SqueezeExcite,
            weave_squeeze_excite,
            {"channels": 4, "blocks": (2, 1)},
        ),
        "densenet": Family(
            "every layer reads all before it", Densenet, weave_densenet, {"growth": 3, "blocks": (2, 2)}
        ),
        "resnet-fabric": Family(
            "residual blocks along and across three stages",
            ResnetFabric,
            weave_resnet_fabric,
            {"channels": 3, "blocks": 2},
        ),
        "b-cnf": Family(
            "the trellis with each edge normalised by itself",
            BudgetedTrellis,
            weave_budgeted_trellis,
            {"channels": 4, "scales": 3, "layers": 3},
        ),
    }
)


def weave_numbers(numbers: Any, purpose: Purpose, name: str | None = None) -> Graph:
    """The graph of any family's numbers; for detection with a head that reads every scale that its others would.

    >>> weave_numbers(Unet(scales=2), Purpose(task="segmentation")).name
    'unet'
    """
    if purpose.task == "detection":
        every = replace(numbers, head="all") if isinstance(numbers, Trellis) else numbers
        other = replace(purpose, task="classification", classes=max(2, purpose.classes))
        return with_boxes(weave_numbers(every, other, name), purpose.classes)
    family = next(key for key, row in FAMILIES.items() if row.numbers is type(numbers))
    return FAMILIES[family].weave(numbers, purpose, name or family)
