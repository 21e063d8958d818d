"""Where a number was measured: machine and versions, as every record of a run states them."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "convfabric",
    "torch",
    "torchvision",
    "numpy",
    "accelerate",
    "safetensors",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "scikit-learn",
    "pillow",
)


def versions() -> dict[str, str]:
    """The installed version of each package this one stands on; "missing" where it is not there.

    >>> "torch" in versions()
    True
    """
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "missing"


def cores() -> int:
    """Processor cores that this process may use.

    >>> cores() >= 1
    True
    """
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str]:
    """The processor, its cores as this process may use them, the accelerator and the system.

    >>> sorted(machine())[:3]
    ['accelerator', 'cores', 'processor']
    """
    import torch

    return {
        "processor": _processor(),
        "cores": str(cores()),
        "torch_threads": str(torch.get_num_threads()),
        "accelerator": torch.cuda.get_device_name(0) if torch.cuda.is_available() else "none",
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def _processor() -> str:
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or "unknown"


def is_first_process() -> bool:
    """Whether this process writes the files: always, unless torchrun started it beside another one.

    >>> is_first_process()
    True
    """
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    """Processes that torchrun or ``accelerate launch`` started for this run.

    >>> process_count()
    1
    """
    return int(os.environ.get("WORLD_SIZE", "1"))


def command() -> str:
    """How this program was started, for what is to be typed next.

    >>> command()
    'convfabric'
    """
    if process_count() == 1:
        return "convfabric"
    here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    nodes = f" --nnodes {process_count() // here}" if process_count() > here else ""
    return f"torchrun --nproc-per-node {here}{nodes} -m convfabric"
