"""Networks by name: of torchvision and timm, in a file, or of an earlier run, with their weights or those in a file."""

import copy
import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from torch import nn

from convfabric.errors import SettingError
from convfabric.fabric.archive import load_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Task
from convfabric.graph.laws import check
from convfabric.importing import onnx_file, program_file
from convfabric.importing.earlier_run import check_channels, continued, folder_of
from convfabric.importing.network import Imported, imported
from convfabric.importing.weight_files import UNSTATED, load_into, stated_of
from convfabric.operators import Size
from convfabric.weavers import Purpose, Source, is_imported
from convfabric.weavers.imported import DECODER

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Mean and spread of the colours that torchvision's weights were trained with, of pixels from 0 to 1."""


@dataclass(frozen=True)
class Original:
    """A network as its library gives it, and the images that its weights are for."""

    module: nn.Module
    size: Size
    mean: tuple[float, ...] = IMAGENET[0]
    """Of each colour, and so is the spread; none where nothing says them, then those of the data are taken."""
    std: tuple[float, ...] = IMAGENET[1]
    channels: int = 3
    about: Mapping[str, str] = field(default_factory=dict)
    """Where it comes from: the network, its weights, and their licence as far as the source states one."""


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
    wanted = _wanted(source.network, **source.numbers)
    if wanted.library == "run":
        found = continued(Path(wanted.network), purpose, wanted.kept)
    else:
        own = _original(wanted).channels
        if (own, purpose.image_channels) != (3, 1):  # a stem for colours is summed
            check_channels(source.network, own, purpose.image_channels)
        classes = None if wanted.kept else purpose.classes
        found = _imported(wanted, purpose.size, purpose.image_channels, classes, purpose.task)
    head = found.fabric.graph.head
    if (head.task, head.classes) != (purpose.task, purpose.classes):
        answers = f"its own is for {head.task} of {head.classes} classes, not {purpose.task} of {purpose.classes}"
        raise SettingError(f"network={source.network}: classifier=kept: {answers}; classifier=fresh replaces it.")
    return found


def as_it_is(source: Source, size: Size | None = None, channels: int | None = None) -> Fabric:
    """A network of others with its own classifier, for images of a size, pixels, by default those it is for."""
    wanted = _wanted(source.network, **source.numbers)
    first = _original(wanted)
    size, channels = size or first.size, channels or first.channels
    if isinstance(first.module, Fabric):
        check_channels(source.network, first.channels, channels)
        check(first.module.graph, size)
        return copy.deepcopy(first.module)
    return copy.deepcopy(_imported(wanted, size, channels, None, "classification").fabric)


def original(name: str, weights: str = "default", **numbers: Any) -> Original:
    """A network as its source gives it; the numbers are those of :class:`convfabric.weavers.imported.Imported`."""
    return _original(_wanted(name, weights, **numbers))


@dataclass(frozen=True)
class _Wanted:
    """What is asked for, and when the files it lies in were changed, so that it is not taken for what they held."""

    library: str
    network: str
    weights: str
    in_order: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]
    decoder: int
    kept: bool
    changed: tuple[int, ...]


def _wanted(
    name: str,
    weights: str = "default",
    weights_in_order: bool = False,
    mean: tuple[float, ...] = (),
    std: tuple[float, ...] = (),
    decoder: int = DECODER,
    classifier: str = "fresh",
) -> _Wanted:
    library, _, network = name.partition(":")
    if library in ("file", "run") and weights == "none":
        raise SettingError(f"network={name}: weights=none: it has its own; default or another file are taken.")
    if library == "run" and weights != "default":
        raise SettingError(f"network={name}: weights={weights}: a run goes on with its own.")
    files = (Path(path) for path in (network, weights) if library == "file" or path is weights)
    changed = tuple(file.stat().st_mtime_ns for file in files if file.is_file())
    return _Wanted(library, network, weights, weights_in_order, mean, std, decoder, classifier == "kept", changed)


@lru_cache(maxsize=2)
def _imported(wanted: _Wanted, size: Size, image_channels: int, classes: int | None, task: Task) -> Imported:
    module, name = _original(wanted).module, f"{wanted.library}:{wanted.network}"
    purpose: Any = {"image_channels": image_channels, "classes": classes, "task": task, "decoder": wanted.decoder}
    return imported(module, size, name=name, **purpose)


@lru_cache(maxsize=2)
def _original(wanted: _Wanted) -> Original:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        found = LIBRARIES[wanted.library](wanted.network, wanted.weights == "default")
    found = replace(found, mean=wanted.mean or found.mean, std=wanted.std or found.std)
    if wanted.weights == "none":
        return replace(found, about={**found.about, "weights": "fresh"})
    if wanted.weights != "default":
        load_into(found.module, Path(wanted.weights), wanted.in_order)
        return replace(found, about={"network": found.about["network"], **stated_of(Path(wanted.weights))})
    return found


def _of_torchvision(name: str, pretrained: bool) -> Original:
    import torchvision  # takes seconds, and only its own networks need it

    models = torchvision.models
    if name not in models.list_models():
        raise SettingError(
            f"network=torchvision:{name}: unknown; convfabric imports {', '.join(models.list_models())}."
        )
    segments = name in models.list_models(module=models.segmentation)
    fresh: dict[str, Any] = {"weights": None, **({"weights_backbone": None} if segments else {})}
    fresh |= {"init_weights": True} if name in ("googlenet", "inception_v3") else {}
    about = {"network": f"{name} of torchvision {torchvision.__version__}"}
    if not pretrained:
        return Original(models.get_model(name, **fresh), (224, 224), about=about)
    known = models.get_model_weights(name)
    if not len(known):
        raise SettingError(f"network=torchvision:{name}: torchvision has no weights for it; --weights none or FILE.")
    module = _fetched(f"torchvision:{name}", lambda: models.get_model(name, weights="DEFAULT"))
    usual: Any = known["DEFAULT"]
    preset = usual.transforms()
    mean, std = (tuple(getattr(preset, part, other)) for part, other in zip(("mean", "std"), IMAGENET, strict=True))
    about |= {"weights": f"{usual}, {usual.url}", "licence": usual.meta.get("license", UNSTATED)}
    return Original(module, (224, 224), mean, std, about=about)


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
    about = {"network": f"{name} of timm {timm.__version__}"}
    if pretrained:
        where = next((facts[key] for key in ("hf_hub_id", "url", "file") if facts.get(key)), "unknown")
        about |= {"weights": f"{facts.get('tag') or 'default'}, {where}", "licence": facts.get("license") or UNSTATED}
    return Original(module, (height, width), tuple(mean), tuple(std), about=about)


def _of_file(name: str, pretrained: bool) -> Original:
    if not Path(name).is_file():
        raise SettingError(
            f"network=file:{name}: no such file; .onnx, and .pt2 as torch.export.save writes it, are read."
        )
    read = onnx_file.module_of if Path(name).suffix == ".onnx" else program_file.module_of
    module = read(Path(name))
    about = {"network": Path(name).name, **stated_of(Path(name))}
    channels = module.image_channels
    inside = module.facts.get("range") == [0, 255]  # of files that convfabric delivered
    mean, std = ((0.0,) * channels, (1 / 255,) * channels) if inside else ((), ())
    return Original(module, module.size, mean, std, channels, about)


def _of_run(name: str, pretrained: bool) -> Original:
    fabric, papers = load_fabric(folder_of(Path(name)))
    before = papers.preprocessing
    about = {"network": fabric.graph.name, "weights": f"those in {name}"}
    return Original(fabric, before.size, before.mean, before.std, before.channels, about)


LIBRARIES: Mapping[str, Callable[[str, bool], Original]] = MappingProxyType(
    {"torchvision": _of_torchvision, "timm": _of_timm, "file": _of_file, "run": _of_run}
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
