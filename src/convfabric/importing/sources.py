"""Networks of torchvision and timm by name, with their weights or those in a file."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
import torchvision
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from convfabric.errors import SettingError
from convfabric.graph import Graph
from convfabric.importing.network import Imported, imported
from convfabric.operators import Size
from convfabric.weavers import Purpose, Source, is_imported

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and spread of the colours that torchvision's weights were trained with, of pixels from 0 to 1."""
NESTED = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema")
"""Names under which checkpoints hold their weights."""


@dataclass(frozen=True)
class Original:
    """A network as its library gives it, and the images that its weights are for."""

    module: nn.Module
    size: Size
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]


def graph_of(source: Source, purpose: Purpose) -> Graph:
    """The graph of a network by name, woven or imported, for a purpose.

    >>> graph_of(Source(network="torchvision:squeezenet1_1", numbers={"weights": "none"}), Purpose(size=(64, 64))).name
    'torchvision:squeezenet1_1'
    """
    return network_of(source, purpose).fabric.graph if is_imported(source.network) else source.woven(purpose)


def network_of(source: Source, purpose: Purpose) -> Imported:
    """A network of others for a purpose; the same one where it was asked for lately, so copy it before training.

    Raises SettingError for a name, weights or a file that are not there, ImportingError for what is no graph.
    """
    numbers = dict(source.numbers)
    return _imported(source.network, purpose, numbers.get("weights", "default"), numbers.get("weights_in_order", False))


@lru_cache(maxsize=2)
def _imported(name: str, purpose: Purpose, weights: str, in_order: bool) -> Imported:
    return imported(
        original(name, weights, in_order).module,
        purpose.size,
        image_channels=purpose.image_channels,
        classes=purpose.classes,
        task=purpose.task,
        name=name,
    )


@lru_cache(maxsize=2)
def original(name: str, weights: str = "default", weights_in_order: bool = False) -> Original:
    """A network of a library with weights of its own, fresh ones (none), or those of a file."""
    library, _, network = name.partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = LIBRARIES[library](network, weights == "default")
    if weights not in ("default", "none"):
        load_into(found.module, Path(weights), weights_in_order)
    return found


def _of_torchvision(name: str, pretrained: bool) -> Original:
    models = torchvision.models
    if name not in models.list_models():
        raise SettingError(
            f"network=torchvision:{name}: unknown; convfabric imports {', '.join(models.list_models())}."
        )
    segments = name in models.list_models(module=models.segmentation)
    fresh: dict[str, Any] = {"weights": None, **({"weights_backbone": None} if segments else {})}
    fresh |= {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    known = models.get_model_weights(name)
    if not pretrained:
        return Original(models.get_model(name, **fresh), (224, 224))
    module = _fetched(f"torchvision:{name}", lambda: models.get_model(name, weights="DEFAULT"))
    preset = next(iter(known)).transforms() if len(known) else None
    mean, std = (tuple(getattr(preset, part, usual)) for part, usual in zip(("mean", "std"), IMAGENET, strict=True))
    return Original(module, (224, 224), mean, std)


def _of_timm(name: str, pretrained: bool) -> Original:
    try:
        timm = importlib.import_module("timm")
    except ImportError:
        raise SettingError(
            f'network=timm:{name}: timm is not installed; pip install "convfabric[timm]" does it.'
        ) from None
    if not timm.is_model(name):
        near = ", ".join(timm.list_models(f"*{name[:6]}*")[:10])
        raise SettingError(f"network=timm:{name}: timm has no such network; near are {near or 'none'}.")
    module = _fetched(f"timm:{name}", lambda: timm.create_model(name, pretrained=pretrained))
    facts: Any = module.pretrained_cfg
    _, height, width = facts.get("input_size", (3, 224, 224))
    mean, std = facts.get("mean", IMAGENET[0]), facts.get("std", IMAGENET[1])
    return Original(module, (height, width), tuple(mean), tuple(std))


LIBRARIES: Mapping[str, Callable[[str, bool], Original]] = MappingProxyType(
    {"torchvision": _of_torchvision, "timm": _of_timm}
)
"""For each source what gives a network by name, with its library's weights or fresh ones."""


def _fetched(name: str, make: Callable[[], nn.Module]) -> nn.Module:
    """What a library gives; SettingError where it cannot fetch the weights."""
    try:
        return make()
    except Exception as fault:  # of networks that are not there libraries raise anything
        said = str(fault).splitlines()[0][:150] if str(fault) else ""
        raise SettingError(
            f"network={name}: its weights are not in the library's cache and cannot be fetched "
            f"({type(fault).__name__}: {said}). --weights FILE names them, --weights none begins with fresh ones."
        ) from None


def load_into(module: nn.Module, file: Path, in_order: bool = False) -> None:
    """The weights of a file, into a module whose names they have, or with ``in_order`` one after another.

    Nothing is unpickled but tensors. Raises SettingError for a file that is none, and names what does not fit.
    """
    found, own = tensors_of(file), module.state_dict()
    counted = {name for name in own if name.endswith("num_batches_tracked")}
    if in_order:
        plain = [name for name in own if name not in counted]
        values = [tensor for name, tensor in found.items() if not name.endswith("num_batches_tracked")]
        if len(plain) != len(values):
            raise SettingError(f"{file}: {len(values)} tensors; the network has {len(plain)}.")
        found = dict(zip(plain, values, strict=True))
    missing = sorted(set(own) - set(found) - counted)
    odd = sorted(set(found) - set(own))
    if missing or odd:
        hint = "" if in_order else " --weights-in-order takes them one after another, whatever their names."
        said = (
            f"{missing[0]} and {len(missing) - 1} more are not there" if missing else f"{odd[0]} is not the network's"
        )
        raise SettingError(f"{file}: {said}; it holds {', '.join(list(found)[:3])} ...{hint}")
    for name, tensor in found.items():
        if tensor.shape != own[name].shape:
            shapes = f"{tuple(tensor.shape)}, the network's is {tuple(own[name].shape)}"
            raise SettingError(f"{file}: {name} is of shape {shapes}.")
    with torch.no_grad():
        for name, tensor in found.items():
            own[name].copy_(tensor)


def tensors_of(file: Path) -> dict[str, Tensor]:
    """The tensors in a file by name, of safetensors, or of a state dict that torch reads without unpickling objects.

    Raises SettingError for a file that is neither, with what would be read.
    """
    if not file.is_file():
        raise SettingError(f"weights={file}: no such file.")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True)
    except SafetensorError as fault:
        raise SettingError(f"weights={file}: not a safetensors file ({fault}).") from None
    except Exception as fault:  # a file of another kind makes torch raise anything
        raise SettingError(
            f"weights={file}: torch reads no tensors from it without running what it holds "
            f"({type(fault).__name__}). Save a state dict: torch.save(model.state_dict(), FILE)."
        ) from None
    found = next((found[name] for name in NESTED if isinstance(found, dict) and name in found), found)
    if not isinstance(found, dict) or not all(isinstance(value, Tensor) for value in found.values()):
        raise SettingError(f"weights={file}: not a state dict, names with tensors.")
    return {name.removeprefix("module."): tensor for name, tensor in found.items()}
