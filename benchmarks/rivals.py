"""Networks that others make: MobileNets of a wanted cost, and ResNets that Torch-Pruning or ModelOpt's FastNAS cut."""

import copy
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path

import timm
import torch
import torch_pruning
from timm.models.efficientnet import _gen_mobilenet_v2
from timm.models.mobilenetv3 import _gen_mobilenet_v4
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

SIZE = (32, 32)
STEPS = 60


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


VERSIONS = (
    f"timm {timm.__version__}, Torch-Pruning {torch_pruning.__version__}, ModelOpt {_installed('nvidia-modelopt')}"
)


def mobilenet_of(version: int, most_macs: float) -> nn.Module:
    """The widest MobileNet of a version that is under a cost, its stem at stride 1 for small images."""
    made: Callable[[float], nn.Module] = _v2 if version == 2 else _v4
    widths = [0.1 * 1.06**i for i in range(STEPS)]
    fitting = [width for width in widths if macs_of(made(width)) <= most_macs]
    return made(max(fitting))


def _v2(width: float) -> nn.Module:
    return _finer(_gen_mobilenet_v2("mobilenetv2_100", width, num_classes=10))


def _v4(width: float) -> nn.Module:
    return _finer(_gen_mobilenet_v4("mobilenetv4_conv_small", width, num_classes=10))


def _finer(network: nn.Module) -> nn.Module:
    stem = network.get_submodule("conv_stem")
    assert isinstance(stem, nn.Conv2d)
    stem.stride = (1, 1)
    return network


def macs_of(network: nn.Module) -> int:
    """Multiply-accumulates for one image of 3×32×32, as torch counts them."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        copy.deepcopy(network).eval()(torch.zeros(1, 3, *SIZE))
    return int(counter.get_total_flops() // 2)


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al. 2015)."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.second = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.norms = nn.ModuleList([nn.BatchNorm2d(after), nn.BatchNorm2d(after)])
        same = before == after and stride == 1
        short = nn.Sequential(nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after))
        self.short = nn.Identity() if same else short

    def forward(self, x: Tensor) -> Tensor:
        inner = F.relu(self.norms[0](self.first(x)))
        return F.relu(self.norms[1](self.second(inner)) + self.short(x))


class PlainResnet(nn.Module):
    """A ResNet of three stages of any width, of the modules that Torch-Pruning knows."""

    def __init__(self, channels: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, channels, 3, 1, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU())
        stages, before = [], channels
        for stage in range(3):
            for i in range(blocks):
                stages.append(Block(before, channels << stage, 2 if stage and i == 0 else 1))
                before = channels << stage
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.stages(self.stem(x)).mean((2, 3)))
        return logits


def resnet_to_prune(most_macs: float, blocks: int) -> PlainResnet:
    """The widest ResNet of three stages under a cost, with so many blocks in each: 3 are ResNet-20, 1 is ResNet-8."""
    every = (PlainResnet(channels, blocks) for channels in range(2, 80))
    return max((network for network in every if macs_of(network) <= most_macs), key=macs_of)


def pruned(network: nn.Module, most_macs: float) -> nn.Module:
    """A copy of a network with the weakest channels of all its layers taken out until it is under a cost."""
    network = copy.deepcopy(network).eval()
    example = torch.zeros(1, 3, *SIZE)
    pruner = torch_pruning.pruner.MagnitudePruner(
        network,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=2, group_reduction="mean"),
        global_pruning=True,
        pruning_ratio=0.95,
        max_pruning_ratio=0.9,
        iterative_steps=400,
        ignored_layers=[network.get_submodule("head")],
    )
    while macs_of(network) > most_macs:
        before = macs_of(network)
        pruner.step()
        if macs_of(network) == before and pruner.current_step >= 400:
            raise ValueError(f"Torch-Pruning leaves {before / 1e6:.1f} M MACs, {most_macs / 1e6:.1f} M are wanted.")
    return network


def searched(
    network: nn.Module,
    most_macs: float,
    batches: Sequence[tuple[Tensor, Tensor]],
    judge: Callable[[nn.Module], float],
    kept: Path | None = None,
) -> nn.Module:
    """A copy of a network, cut by FastNAS until it is under a cost; ``batches`` are for statistics of norms.

    In the file ``kept`` lies what it found out about each layer, which the next search of the same network goes by.

    ``judge`` scores sub-networks. Widths are even numbers: ModelOpt's usual multiples of 32 leave such small networks
    nothing to choose.
    """
    import modelopt.torch.prune as mtp

    rules = mtp.fastnas.FastNASConfig().model_dump()
    even = {"nn.Conv2d": {"channel_divisor": 2}, "nn.BatchNorm2d": {"feature_divisor": 2}}
    found: nn.Module
    found, _ = mtp.prune(
        model=copy.deepcopy(network).to(memory_format=torch.contiguous_format),
        mode=[("fastnas", {kind: {"*": rules[kind]["*"] | changed} for kind, changed in even.items()})],
        constraints={"flops": 2 * most_macs},
        dummy_input=torch.zeros(1, 3, *SIZE),
        config={
            "data_loader": batches,
            "score_func": judge,
            "verbose": False,
            "checkpoint": str(kept) if kept else None,
        },
    )
    return found
