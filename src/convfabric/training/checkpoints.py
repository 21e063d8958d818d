"""The state of a run on disk: one file, written whole or not at all, that a run goes on from to the bit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from convfabric.errors import ArchiveError, SettingError
from convfabric.fabric.archive import digest_of, load_weights, read_tensors, write_atomically
from convfabric.graph.json_format import parsed


@dataclass(kw_only=True)
class Progress:
    """Where a run stands. Everything random is drawn anew from seed, epoch and step, so this is all."""

    step: int = 0
    """Steps taken."""
    loss_sum: float = 0.0
    """Of the losses of this epoch's steps."""
    rows: list[dict[str, Any]] = field(default_factory=list)
    """One for each epoch that has ended: the lines of metrics.csv."""


def save_state(
    file: Path,
    trained: Mapping[str, nn.Module],
    optimiser: torch.optim.Optimizer,
    progress: Progress,
    identity: Mapping[str, str],
) -> None:
    """Weights of what is trained, by its name, the optimiser's memory and the progress into one file."""
    tensors = {f"{part}.{name}": t for part, module in trained.items() for name, t in module.state_dict().items()}
    for number, memory in optimiser.state_dict()["state"].items():
        for name, value in memory.items():
            if isinstance(value, Tensor):
                tensors[f"optimiser.{number}.{name}"] = value
    flat = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    facts = {"progress": json.dumps(vars(progress)), "identity": json.dumps(dict(identity)), "digest": digest_of(flat)}
    write_atomically(file, save(flat, metadata=facts))


def load_state(
    file: Path, trained: Mapping[str, nn.Module], optimiser: torch.optim.Optimizer, identity: Mapping[str, str]
) -> Progress:
    """The state in a file into what is trained and the optimiser; SettingError where other settings made it."""
    tensors, facts = read_tensors(file)
    if not {"identity", "progress"} <= set(facts):
        raise ArchiveError(f"{file}: not the state of a training run.")
    if facts.get("digest", digest_of(tensors)) != digest_of(tensors):
        raise ArchiveError(f"{file}: not the state that was written. Nothing was loaded; --force begins anew.")
    before = parsed(facts["identity"], f"{file}, identity")
    for name in sorted(set(before) | set(identity)):
        if before.get(name) != identity.get(name):
            raise SettingError(
                f"{file}: the run was started with {name} {before.get(name)}, now it is {identity.get(name)}. "
                "A run goes on only as it was started; choose another folder, or --force to start anew."
            )
    for part, module in trained.items():
        own = {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}
        load_weights(module, own, str(file))
    memory: dict[int, dict[str, Tensor]] = {}
    try:
        for name, tensor in tensors.items():
            if name.startswith("optimiser."):
                _, number, key = name.split(".")
                memory.setdefault(int(number), {})[key] = tensor
        optimiser.load_state_dict({"state": memory, "param_groups": optimiser.state_dict()["param_groups"]})
        progress = Progress(**parsed(facts["progress"], f"{file}, progress"))
    except (TypeError, ValueError, KeyError) as fault:
        raise ArchiveError(f"{file}: not the state of this training run ({fault}).") from None
    return progress
