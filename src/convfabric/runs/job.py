"""Everything one ``fit`` needs, as one flat set of settings: what ``config.yaml`` holds and ``--set`` changes."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from types import NoneType
from typing import Any, Literal, get_type_hints

import yaml

from convfabric.choice import Budget, budget_from
from convfabric.data.options import DataOptions
from convfabric.errors import DataError, SettingError
from convfabric.graph import Graph, Task
from convfabric.graph.rewrites import find_prior
from convfabric.latency.target import FORMATS, HERE, Target
from convfabric.operators import Size
from convfabric.setting_values import OTHER_NAMES, accepted, accepted_value, parsed_size
from convfabric.training.recipe import Recipe
from convfabric.weavers import DEFAULT, FAMILIES, Purpose, Source, find_preset, is_imported, weave
from convfabric.weavers.presets import OF_IMPORTED, OF_KEPT

RANGES = (
    *(("trials", 1, 1_000_000), ("rounds", 1, 10_000), ("finetune", 0, 1000), ("finetune_lr", 1e-9, 1e9)),
    *(("finetune_most", 1, 1000), ("finalists", 1, 64), ("teacher_epochs", 0, 1_000_000)),
    *(("int8_loss", 0, 100), ("minutes", 0, 1_000_000), ("threads", 1, 1024), ("opset", 18, 24)),
)
"""Least and most of the numbers of a procedure."""
RATE_FOR_BOXES = 0.05
"""Highest usual learning rate of SGD where boxes are looked for; at 0.2 four of ten short trainings had AP50 < 0.17."""


@dataclass(frozen=True, kw_only=True)
class Procedure:
    """Settings of the stages between training and export."""

    network: str = DEFAULT
    """A preset's or a family's name."""
    worth: Literal["loss-change", "mean-squared-weight", "random"] = "loss-change"
    """By what edges are weighed."""
    search: Literal["evolution", "worth", "exact"] = "evolution"
    """How a network within the budget is chosen. evolution: many are tried on validation images with the weights
    they inherit, edges and widths. worth: edges go by worth for cost. exact: the edges of largest total worth."""
    trials: int = 64
    """Sub-networks that the evolution tries."""
    rounds: int = 4
    """Cuts by worth, each weighed anew, on the way to the budget."""
    finalists: int = 1
    """Networks of other depths and edges that are fine-tuned for a tenth of its epochs, before the best one is for all
    of them."""
    teacher: str = ""
    """A network of others that is tuned on the images first and followed by the fabric: torchvision:NAME, timm:NAME,
    a file (file:FILE.pt2, file:FILE.onnx), or run:FOLDER, which is taken as it is where its classes are these."""
    teacher_weights: str = "default"
    """Its weights: default, none or a file."""
    teacher_epochs: int = 0
    """Epochs that it is tuned for; 0: a quarter of the fabric's."""
    finetune: float = 0.5
    """Epochs of fine-tuning, as a share of the training's; 0 leaves it out."""
    finetune_most: float = 1.0
    """Times as many epochs that a network may be fine-tuned for which costs less, at no more cost than the fabric's."""
    finetune_lr: float = 0.4
    """Learning rate of fine-tuning, as a share of the training's."""
    finetune_distil: float = 0.0
    """Share of the loss of fine-tuning that follows the fabric; the rest follows the labels."""
    minutes: float = 0.0
    """Most that training and fine-tuning may take on this machine, about; 0: as long as the epochs take."""
    threads: int = 1
    """Threads that latency is measured with."""
    runtime: Literal["onnxruntime", "openvino"] = "onnxruntime"
    """What networks are timed by, here and on boards; the files are the same."""
    precision: Literal["float32", "int8", "auto"] = "float32"
    """Numbers that the delivered network works in: int8 where that costs few right answers, see int8_loss; auto: of
    both, each within the budget, whichever answers best."""
    int8_loss: float = 0.5
    """Percentage points of accuracy, or of mIoU, on validation images that int8 may cost; else it is float32."""
    opset: int = 18
    """Version of ONNX's operators in exported files, 18 to 24: the older, the older the runtimes that load them."""
    device: str = HERE
    """Where milliseconds are measured: local, ssh:user@host[:python] (a board with numpy and onnxruntime), or
    kit:FOLDER, a folder that is carried to a board and back."""
    accelerator: Literal["auto", "cpu"] = "auto"
    """Where training runs."""

    def __post_init__(self) -> None:
        find_preset(self.network)
        Target(device=self.device)
        for name, least, most in RANGES:
            if getattr(self, name) < least:
                raise SettingError(f"{name}={getattr(self, name)}: give at least {least}.")
            if getattr(self, name) > most:
                raise SettingError(f"{name}={getattr(self, name)}: give at most {most}.")
        if self.teacher and not is_imported(self.teacher):
            raise SettingError(f"teacher={self.teacher}: torchvision:NAME, timm:NAME, file:FILE or run:FOLDER.")
        if not 0 <= self.finetune_distil <= 1:
            raise SettingError(f"finetune_distil={self.finetune_distil}: give a share from 0 to 1.")


@dataclass(frozen=True, kw_only=True)
class Job:
    """Data, network, training and budget."""

    data: str
    """A folder, a CSV table or a name."""
    numbers: Mapping[str, Any] = field(default_factory=dict)
    """Numbers of the network's family that replace the preset's."""
    options: DataOptions = DataOptions()
    recipe: Recipe = Recipe()
    budget: Budget = Budget()
    procedure: Procedure = Procedure()

    @property
    def target(self) -> Target:
        """The target of the budget's milliseconds."""
        return self.targets[0]

    @property
    def targets(self) -> tuple[Target, ...]:
        """Those of each number format that is asked for."""
        procedure = self.procedure
        formats = FORMATS if procedure.precision == "auto" else (procedure.precision,)
        how: dict[str, Any] = {name: getattr(procedure, name) for name in ("device", "threads", "runtime")}
        return tuple(Target(**how, precision=one) for one in formats)

    @property
    def source(self) -> Source:
        """Where the fabric's graph comes from."""
        return Source(network=self.procedure.network, numbers=self.numbers)

    def tuning(self, images: int, task: Task, cheaper: float = 1.0) -> Recipe:
        """The recipe of fine-tuning, for so many training images, of a network that costs so many times less."""
        recipe, procedure = self.recipe.fitted(images, task), self.procedure
        longer = max(1.0, min(cheaper, procedure.finetune_most))
        return recipe.changed(
            epochs=max(1, round(recipe.epochs * procedure.finetune * longer)),
            lr=recipe.lr * procedure.finetune_lr,
            distil=procedure.finetune_distil,
            subnetworks=0,
            sizes=(),
            heads_first=0.0,
            trunk_lr=1.0,
            gates="none",
            give_up=0.0,
            seed=recipe.seed + 1,
        )

    def teaching(self, images: int, task: Task) -> "Job":
        """The job of tuning the teacher, on so many training images."""
        recipe, procedure = self.recipe.fitted(images, task), self.procedure
        usual = {**OF_IMPORTED, "subnetworks": 0, "seed": recipe.seed}
        usual["epochs"] = procedure.teacher_epochs or max(1, round(recipe.epochs / 4))
        known = {part.name for part in fields(Recipe)}
        return replace(
            self,
            numbers={"weights": procedure.teacher_weights},
            recipe=Recipe(**{name: value for name, value in usual.items() if name in known}),
            budget=Budget(),
            procedure=Procedure(network=procedure.teacher, accelerator=procedure.accelerator),
        )


PURPOSE = ("task", "classes", "image_channels")
"""Settings of a network's purpose, where no data say it."""
SECTIONS: Mapping[str, type] = {"options": DataOptions, "recipe": Recipe, "budget": Budget, "procedure": Procedure}


def known_settings(network: str = DEFAULT) -> list[str]:
    """Every key that a configuration may have, for a network.

    >>> "epochs" in known_settings(), "layers" in known_settings(), "layers" in known_settings("unet")
    (True, True, False)
    """
    sections = (field.name for kind in SECTIONS.values() for field in fields(kind))
    return ["data", *_numbers_of(network), *sections]


def job_from(settings: Mapping[str, Any]) -> Job:
    """The job that flat settings describe; SettingError for an unknown key or a value of another kind.

    What is not said is as usual for the network.

    >>> job_from({"data": "digits", "epochs": 5, "macs": "25%", "size": "16x8"}).options.size
    (8, 16)
    >>> [job_from({"data": "digits", **said}).recipe.lr for said in ({}, {"lr": 0.3}, {"optimiser": "adamw"})]
    [0.2, 0.3, 0.0]
    """
    network = str(settings.get("network") or DEFAULT)
    known = known_settings(network)
    given = {name: value for name, value in settings.items() if (name, value) != ("lr", 0)}
    settings = {**settings, **_usual(network, given), **given}
    if unknown := sorted(set(settings) - set(known)):
        whose = "" if network == DEFAULT else f" for {network}"
        raise SettingError(f"{', '.join(unknown)}: unknown{whose}. {_meant(unknown[0], network)}")
    if not (isinstance(settings.get("data"), str) and settings["data"].strip()):
        raise SettingError("data: say which folder, CSV file or named set to use.")
    parts: dict[str, Any] = {
        name: kind(**_taken(kind, settings)) for name, kind in SECTIONS.items() if kind is not Budget
    }
    ceilings = {f.name: settings[f.name] for f in fields(Budget) if settings.get(f.name) is not None}
    numbers = {name: value for name, value in settings.items() if name in _numbers_of(network) and value is not None}
    return Job(
        data=str(Path(settings["data"])),
        numbers=network_numbers(network, numbers),
        budget=budget_from(ceilings),
        **parts,
    )


def _meant(unknown: str, network: str) -> str:
    """Suggestion for an unknown setting: our name for it, networks that have it, one spelt nearly so, or all there are.

    >>> _meant("epoch", "unet"), _meant("growth", "unet"), _meant("learning_rate", "unet")
    ('Did you mean epochs?', 'Networks that have it: msdnet, densenet.', 'Did you mean lr?')
    """
    if OTHER_NAMES.get(unknown.lower()) in known_settings(network):
        return f"Did you mean {OTHER_NAMES[unknown.lower()]}?"
    if others := [name for name in FAMILIES if unknown in _numbers_of(name)]:
        return f"Networks that have it: {', '.join(others)}."
    if near := get_close_matches(unknown, known_settings(network), n=1):
        return f"Did you mean {near[0]}?"
    parts = {network: _numbers_of(network)} | {name: [f.name for f in fields(kind)] for name, kind in SECTIONS.items()}
    return f"Known are {'; '.join('of ' + part + ' ' + ', '.join(names) for part, names in parts.items())}."


def _usual(network: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Usual training settings of a network, where nothing is set that they would not go with."""
    usual = dict(find_preset(network).training)
    if settings.get("gates", "none") != "none":
        return {}
    if settings.get("teacher"):
        usual["finetune_distil"] = 0.5
    if settings.get("classifier") == "kept":
        usual |= OF_KEPT
    if settings.get("optimiser", "sgd") != "sgd":
        usual.pop("lr", None)
    elif _looks_for_boxes(settings):
        usual["lr"] = min(usual.get("lr", RATE_FOR_BOXES), RATE_FOR_BOXES)
    return usual


def _looks_for_boxes(settings: Mapping[str, Any]) -> bool:
    """Whether the task is detection, as it is said or as a COCO file has it; what cannot be read is told later."""
    from convfabric.data.opening import task_of

    task, source = settings.get("task"), Path(str(settings.get("data", "")))
    with suppress(DataError, OSError):
        if not task and (source.suffix == ".json" or any(source.glob("*.json")) or any(source.glob("*/*.json"))):
            task = task_of(str(source))
    return bool(task == "detection")


def _numbers_of(network: str) -> list[str]:
    return [*(field.name for field in fields(find_preset(network).numbers)), "prior"]


def network_numbers(network: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Checked numbers of a network's family; SettingError for an unknown name, or a value it cannot have.

    >>> network_numbers("trellis", {"layers": 5}), network_numbers("resnet", {"blocks": [1, 2]})
    ({'layers': 5}, {'blocks': (1, 2)})
    """
    if unknown := sorted(set(settings) - set(names := _numbers_of(network))):
        raise SettingError(f"{', '.join(unknown)}: {network} has {', '.join(names)}.")
    prior = {"prior": _value("prior", str, settings["prior"])} if settings.get("prior") else {}
    usual = find_preset(network).numbers
    changed = _taken(type(usual), settings)
    _refuse_early(usual, changed, **prior)
    return changed | prior


def _refuse_early(usual: Any, changed: Mapping[str, Any], prior: str = "") -> None:
    """SettingError for what no graph can be woven with, whatever the images are; they are not read yet."""
    replace(usual, **changed)
    if prior:
        find_prior(prior)


def _taken(kind: type, settings: Mapping[str, Any]) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {f.name: _value(f.name, hints[f.name], settings[f.name]) for f in fields(kind) if f.name in settings}


def _value(name: str, hint: Any, value: Any) -> Any:
    """The value if it is of the kind; 240x180 may stand for a size."""
    if hint == Size | None:
        return None if value is None else parsed_size(value)
    return accepted_value(name, hint, value)


def network_from(name: str, size: str | None, changes: Sequence[str]) -> tuple[Graph, Size]:
    """A network by name, and the size of its images; changes such as "layers=4" are of its family's numbers or purpose.

    >>> graph, size = network_from("unet", "240x180", ["scales=4", "task=segmentation", "classes=11"])
    >>> graph.head.task, graph.head.classes, size
    ('segmentation', 11, (180, 240))
    """
    image = parsed_size(size) if size else None
    numbers = dict(parsed_setting(change) for change in changes)
    purpose = {key: numbers.pop(key) for key in PURPOSE if key in numbers}
    if is_imported(name):
        return _imported_from(name, image, numbers, purpose)
    image = image or find_preset(name).size
    return weave(name, size=image, **purpose, **network_numbers(name, numbers)), image


def _imported_from(
    name: str, image: Size | None, numbers: Mapping[str, Any], purpose: Mapping[str, Any]
) -> tuple[Graph, Size]:
    """The graph of a network of others as it is, or for a purpose where one is given; fresh weights do for that."""
    from convfabric.importing.sources import as_it_is, graph_of, original  # needs torch

    fresh = {} if name.startswith(("file:", "run:")) else {"weights": "none"}
    source = Source(network=name, numbers=network_numbers(name, fresh | dict(numbers)))
    image = image or original(name, **source.numbers).size
    if not purpose:
        return as_it_is(source, image).graph, image
    usual = {"classes": 1000} | dict(purpose)
    return graph_of(source, Purpose(size=image, **accepted(Purpose, usual))), image


def settings_of(job: Job) -> dict[str, Any]:
    """The flat settings of a job; :func:`job_from` gives it back.

    >>> job = job_from({"data": "digits", "epochs": 5, "macs": "25%", "size": "16x8"})
    >>> job_from(settings_of(job)) == job
    True
    """
    numbers = {name: list(value) if isinstance(value, tuple) else value for name, value in job.numbers.items()}
    flat: dict[str, Any] = {"data": job.data, **numbers}
    for section in SECTIONS:
        part = getattr(job, section)
        flat |= {f.name: getattr(part, f.name) for f in fields(part)}
    if job.options.size:
        flat["size"] = f"{job.options.size[1]}x{job.options.size[0]}"
    return flat


def read_config(file: Path) -> dict[str, Any]:
    """The settings in a YAML file; SettingError where it is not one flat mapping."""
    if not file.is_file():
        raise SettingError(f"{file}: no such file.")
    try:
        found = yaml.safe_load(file.read_text("utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as fault:
        raise SettingError(f"{file}: cannot be read as YAML ({fault}).") from None
    except RecursionError:
        raise SettingError(f"{file}: nested too deep.") from None
    if not isinstance(found, dict):
        raise SettingError(f"{file}: expected lines of the form key: value.")
    plain = (str, int, float, bool, NoneType)
    for key, value in found.items():
        several = value if isinstance(value, list) else [value]
        if not isinstance(key, str) or not all(isinstance(item, plain) for item in several):
            raise SettingError(f"{file}: {key!r} is not a name with a text, a number or a list of such.")
    if found.get("device") in ("auto", "cpu"):  # names from before networks were timed elsewhere and in int8
        found["accelerator"] = found.pop("device")
        if "precision" in found:
            found["autocast"] = found.pop("precision")
    return found


def written_config(job: Job) -> str:
    """The job as YAML, one line a setting.

    >>> written_config(job_from({"data": "digits"})).splitlines()[0]
    'data: digits'
    """
    return yaml.safe_dump(settings_of(job), sort_keys=False, allow_unicode=True)


def parsed_setting(text: str) -> tuple[str, Any]:
    """Name and value of "name=value", the value read as YAML would.

    >>> parsed_setting("epochs=5"), parsed_setting("flip=false"), parsed_setting("lr=1e-2")
    (('epochs', 5), ('flip', False), ('lr', 0.01))
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise SettingError(f"--set {text}: give it as NAME=VALUE.")
    try:
        return name.strip(), float(value) if _is_exponent(value) else yaml.safe_load(value)
    except yaml.YAMLError:
        return name.strip(), value


def _is_exponent(value: str) -> bool:
    """Whether it is a number such as 1e-2, which YAML takes for text."""
    digits, letter, power = value.lower().partition("e")
    return bool(letter) and digits.replace(".", "", 1).isdigit() and power.lstrip("+-").isdigit()


def default_folder(data: str | Path) -> Path:
    """The run folder where none was named.

    >>> default_folder("photos/").as_posix()
    'runs/photos'
    """
    return Path("runs") / (Path(data).resolve().stem or "run")
