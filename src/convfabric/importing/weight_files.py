"""Weights in files of others, of which nothing but tensors is read."""

import hashlib
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from convfabric.errors import SettingError

NESTED = ("state_dict", "model", "model_state_dict", "state_dict_ema", "model_ema", "ema")
"""Names under which checkpoints hold their weights."""


UNSTATED = "not stated by the source"
"""What is said of a licence that is nowhere named."""


def stated_of(file: Path) -> dict[str, str]:
    """What is recorded of weights in a file: its name and digest, and the licence that a safetensors file states.

    >>> import tempfile
    >>> from safetensors.torch import save_file
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = Path(folder) / "my.safetensors"
    ...     save_file({"a": torch.zeros(1)}, file, {"license": "MIT"})
    ...     stated_of(file)["licence"]
    'MIT'
    """
    with file.open("rb") as content:
        digest = hashlib.file_digest(content, "sha256").hexdigest()
    stated: dict[str, str] = {}
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            stated = opened.metadata() or {}
    licence = stated.get("license") or stated.get("licence") or UNSTATED
    return {"weights": f"{file.name}, SHA-256 {digest}", "licence": licence}


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
