"""The words of the command line: arguments and options that several commands share, and what they become."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from convfabric.runs.job import Job

Data = Annotated[
    str,
    typer.Argument(help="A folder, a table, a COCO file, or one of digits, mnist, fashion-mnist, cifar10, cifar100."),
]
RunFolder = Annotated[Path, typer.Argument(help="The folder of a run.", show_default=False)]
Out = Annotated[Path | None, typer.Option("--out", help="The run folder. (default: runs/DATA)")]
Config = Annotated[
    Path | None,
    typer.Option(rich_help_panel="Training", help="A flat YAML file of settings, such as a run's config.yaml."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", rich_help_panel="Training", help="NAME=VALUE, any setting; repeat for several."),
]
Network = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Network",
        help="A preset or a family, see convfabric list; or torchvision:NAME, timm:NAME, file:FILE.pt2, file:FILE.onnx."
        "  (default: a fabric as large as the budget asks for)",
    ),
]
From = Annotated[
    Path | None,
    typer.Option(
        "--from",
        rich_help_panel="Network",
        help="An earlier run, whose fabric is trained on, with new heads.",
        show_default=False,
    ),
]
Weights = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Network",
        help="Of a network of others: a file, default (its library's) or none (fresh). (default: default)",
    ),
]
InOrder = Annotated[
    bool,
    typer.Option(
        "--weights-in-order",
        rich_help_panel="Network",
        help="Take the file's tensors in their order, whatever their names.",
    ),
]
Teacher = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Network",
        help="A network of others, as for --network, that is tuned on the images and followed. (default: none)",
    ),
]
TeacherWeights = Annotated[
    str | None, typer.Option(rich_help_panel="Network", help="Its weights, as --weights. (default: default)")
]
Epochs = Annotated[
    int | None,
    typer.Option(
        rich_help_panel="Training", min=1, help="Passes over the training images. (default: fit for their number)"
    ),
]
Minutes = Annotated[
    float | None,
    typer.Option(
        rich_help_panel="Training",
        help="About the most that training and fine-tuning may take; searches, and a second cut where the first was "
        "too slow, come on top. (default: as long as the epochs take)",
    ),
]
Size = Annotated[
    str | None,
    typer.Option(rich_help_panel="Data", help="WIDTHxHEIGHT that images are brought to. (default: from the images)"),
]
Task = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Data",
        help="What a COCO file is read for: segmentation (outlines) or detection (boxes). (default: outlines, if any)",
        show_default=False,
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        rich_help_panel="Training", help="Random seed for initial weights, batch order and augmentation. (default: 0)"
    ),
]
Seeds = Annotated[
    int | None,
    typer.Option(
        rich_help_panel="Training",
        min=2,
        help="Repeat all for so many seeds, each in OUT/seed-N, and say how far apart results are.",
    ),
]
DataDir = Annotated[str | None, typer.Option(rich_help_panel="Data", help="Folder of the named data sets.")]
Download = Annotated[
    bool, typer.Option("--download", rich_help_panel="Data", help="Fetch a named data set into --data-dir.")
]
Threads = Annotated[
    int | None, typer.Option(rich_help_panel="Budget", help="Threads that latency is measured with. (default: 1)")
]
Device = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Budget",
        help="Where milliseconds are measured: local, ssh:user@host[:python] or kit:FOLDER. (default: local)",
        show_default=False,
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(
        rich_help_panel="Budget",
        help="Numbers that the network works in: float32, int8 or auto (whichever answers best). (default: float32)",
        show_default=False,
    ),
]
Opset = Annotated[
    int | None,
    typer.Option(
        rich_help_panel="Network",
        min=18,
        max=24,
        help="Version of ONNX's operators in the files, for older runtimes. (default: 18)",
    ),
]
LatencyMs = Annotated[
    str | None,
    typer.Option(rich_help_panel="Budget", help="Milliseconds an image on --device, or a share such as 50%."),
]
Macs = Annotated[
    str | None,
    typer.Option(rich_help_panel="Budget", help="Multiply-accumulates an image, such as 10M, or a share such as 25%."),
]
Params = Annotated[
    str | None, typer.Option(rich_help_panel="Budget", help="Parameters, such as 100k, or a share such as 50%.")
]
MemoryMb = Annotated[
    str | None,
    typer.Option(rich_help_panel="Budget", help="Peak memory in megabytes, weights and activations, or a share."),
]
Force = Annotated[bool, typer.Option("--force", help="Replace the run that is there. (default: refuse)")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue the run that is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]

Strict = Annotated[bool, typer.Option("--strict", help="Exit with code 4 where the result is doubtful.")]


def settings_from(config: Path | None, changes: list[str] | None, **named: Any) -> dict[str, Any]:
    """Settings from the file, then from --set, then from options of their own."""
    from convfabric.runs.job import parsed_setting, read_config

    found = read_config(config) if config else {}
    found |= dict(parsed_setting(change) for change in changes or [])
    return found | {name: value for name, value in named.items() if value is not None and value is not False}


def not_both(force: bool, resume: bool) -> None:
    """BadParameter where both are asked for."""
    if force and resume:
        raise typer.BadParameter("--force starts anew and --resume goes on: give one of them.")


def begun_from(network: str | None, earlier: Path | None) -> str | None:
    """The network that is meant: by name, or the fabric of an earlier run."""
    if earlier is None:
        return network
    if network is not None:
        raise typer.BadParameter("--from goes on with a run's own network and --network names one: give one of them.")
    return f"run:{earlier.resolve()}"


def job_of_words(folder: Path, resume: bool, config: Path | None, changes: list[str] | None, **named: Any) -> "Job":
    """The job to run; a run that is resumed brings its own configuration."""
    from convfabric.errors import SettingError
    from convfabric.runs.job import job_from, read_config

    if resume and not (folder.exists() or changes or config or any(part for at, part in named.items() if at != "data")):
        raise SettingError(f"{folder}: no run there to go on with; type the whole command, without --resume.")
    if resume and config is None and (folder / "config.yaml").is_file():
        config = folder / "config.yaml"
        before, now = read_config(config).get("network"), named.get("network")
        if now not in (None, before):
            raise SettingError(f"{folder}: begun with network={before}, now network={now}. A run goes on as it began.")
    return job_from(settings_from(config, changes, **named))
