"""A finished run on other images: scored on a data set, or answering for single files."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from convfabric.boxes.answers import LIKELY, found_in
from convfabric.data.coco import split_of
from convfabric.data.imageset import HeldSplit, ImageSet, Split
from convfabric.data.layouts import SPLIT_NAMES
from convfabric.data.opening import open_data
from convfabric.data.part_labels import has_superpixels, superpixels_of
from convfabric.data.reading import fitted_array, placement, read_picture
from convfabric.errors import DataError
from convfabric.evaluation.baseline import doubts
from convfabric.evaluation.crf import FieldNumbers, Refined, chosen_field
from convfabric.evaluation.early_exit import answer_early, exits_of
from convfabric.evaluation.exit_thresholds import Exits
from convfabric.evaluation.scoring import Score, score
from convfabric.evaluation.superpixels import SuperpixelScore, superpixel_score
from convfabric.execution.runners import for_inference
from convfabric.fabric.archive import Passport, load_fabric
from convfabric.graph.json_format import written
from convfabric.latency.measurement import timed
from convfabric.latency.target import Target
from convfabric.operators import Size
from convfabric.pipeline.inputs import BY_THEIR_OWN, opened, untrained
from convfabric.runs.folder import check_data_there, job_of
from convfabric.runs.job import job_from
from convfabric.runs.record import read_record

DEFAULT_SPLITS = ("test", "all", "val", "train")
"""The first that is there is scored where none is named."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Scores of a network on one split."""

    split: str
    score: Score
    exits: Exits | None
    """Of networks with several exits, scores and costs of each; needs a val split."""
    doubts: tuple[str, ...]
    """Why the score is not to be trusted, see :func:`convfabric.evaluation.baseline.doubts`."""
    same_images: bool
    """Whether the data are those of the run, wherever they lie."""
    superpixels: SuperpixelScore | None = None
    """Of Part Labels, the score over superpixels."""
    field: "WithField | None" = None
    """Of masks refined by a conditional random field, where that was asked for."""

    @property
    def trained_on(self) -> bool | None:
        """Whether images that the network was trained on are among them; of other data it is not known."""
        return self.split in ("train", "all") if self.same_images else None

    def as_json(self) -> dict[str, Any]:
        """Plain values for ``--json``."""
        return {**written(self.score), "split": self.split, "exits": written(self.exits)} | {
            "balanced_accuracy": self.score.balanced_accuracy,
            "doubts": list(self.doubts),
            "same_images": self.same_images,
            "trained_on": self.trained_on,
            "superpixel_accuracy": self.superpixels.accuracy if self.superpixels else None,
            "field": written(self.field),
        }


@dataclass(frozen=True, kw_only=True)
class WithField:
    """Masks refined by a conditional random field."""

    numbers: FieldNumbers
    """Chosen on validation images of the run."""
    score: Score
    alone_ms: float
    """Of the network, torch on the processor, one thread, one image."""
    refined_ms: float
    """Of the network and the field, likewise."""
    superpixels: SuperpixelScore | None = None
    """Of Part Labels, the score over superpixels."""


def with_field(run: Path, split: str | None = None) -> WithField:
    """How a run's network answers on a split of the run's own images with a field behind it, and what that costs.

    Raises DataError for classification, and where the data are gone or have changed.
    """
    network, papers = load_fabric(run)
    if papers.graph.head.task != "segmentation":
        raise DataError(f"{run}: fields refine masks; the network does {papers.graph.head.task}.")
    check_data_there(run, job_of(run), "a field is chosen on the run's own validation images")
    data, _ = _opened(run, job_of(run).data, papers, whole=False)
    numbers = chosen_field(network, replace(data, preprocessing=papers.preprocessing))
    both = Refined(for_inference(network), numbers).eval()
    name = _split_named(split, data)
    found, over = score(both, data, name), _over_superpixels(both, data, name, Path(job_of(run).data))
    image = torch.zeros(1, papers.preprocessing.channels, *papers.preprocessing.size)
    alone, refined = (_milliseconds(module, image) for module in (both.network, both))
    return WithField(numbers=numbers, score=found, alone_ms=alone, refined_ms=refined, superpixels=over)


def _over_superpixels(network: nn.Module, data: ImageSet, split: str, root: Path) -> SuperpixelScore | None:
    return superpixel_score(network, data, split, partial(superpixels_of, root)) if has_superpixels(root) else None


def _milliseconds(module: nn.Module, image: Tensor) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            size = image.shape[-2], image.shape[-1]
            return timed(lambda: module(image), Target(runtime="torch"), size, "torch", seconds=0.5).median_ms
    finally:
        torch.set_num_threads(threads)


def evaluate(run: Path, source: str | None = None, split: str | None = None) -> Evaluation:
    """How a run's network answers on a split.

    Without a source the run's own data are used. Where a source holds the same images, moved or copied, they are split
    as they were for the run; the split "all" is every image of data without splits. Classes are matched by name.
    Raises DataError for a class the network does not know, a split that is not there, or data of its own that are gone
    or have changed.
    """
    network, papers = load_fabric(run)
    if source is None:
        check_data_there(run, job_of(run), "name a folder of other images")
    data, same = _opened(run, source or job_of(run).data, papers, whole=split == "all")
    if source is None and not same:
        raise DataError(f"{data.name}: changed since {run} was trained on it; name its folder to score what it is now.")
    name = _split_named(split, data, source or "")
    labelled = matched(data, papers, name)
    found = score(network, labelled, name)
    several = len(network.graph.heads) > 1 and source is None
    exits = exits_of(network, data, name) if several else None
    said, root = tuple(doubts(found, papers.classes)), Path(source or job_of(run).data)
    over = _over_superpixels(network, labelled, name, root)
    return Evaluation(split=name, score=found, exits=exits, doubts=said, same_images=same, superpixels=over)


def evaluate_network(network: str, source: str, split: str | None = None, **settings: Any) -> Evaluation:
    """How a network of others answers as it is, with its own classifier, on images split as a fit would split them.

    ``settings`` are those of a job, such as weights, size, mean and std. Classes count in the order of their names.
    Raises SettingError where it answers for another number of them, and DataError for a split that is not there.
    """
    job = job_from({"data": source, "network": network, **settings, "classifier": "kept"})
    data = opened(job)
    name = _split_named(split, data)
    found = score(untrained(job, data)[0], data, name)
    order = f", or with classes in another order than here: {', '.join(data.classes[:12])}"
    said = [*doubts(found, data.classes, order), *(note for note in data.notes if note == BY_THEIR_OWN)]
    return Evaluation(split=name, score=found, exits=None, doubts=tuple(said), same_images=False)


def _split_named(split: str | None, data: ImageSet, source: str = "") -> str:
    """The split that is asked for: by name, by the file of it that is named, or the first that is usual."""
    of_file = split_of(Path(source)) if source.lower().endswith(".json") else None
    split = split or (of_file if of_file in data.splits else None)
    name = SPLIT_NAMES.get(split, split) if split else next(name for name in DEFAULT_SPLITS if name in data.splits)
    if name not in data.splits:
        raise DataError(f"{data.name}: no split {name}; there are {', '.join(sorted(data.splits))}.")
    return name


def _opened(run: Path, source: str, papers: Passport, *, whole: bool) -> tuple[ImageSet, bool]:
    """The data that a source names, and whether they are the run's: then split as for it, unless all are wanted."""
    preprocessing, before = papers.preprocessing, read_record(run).done("data").data
    assert before is not None
    options = replace(
        job_of(run).options,
        size=before.size,
        fitting=preprocessing.fitting,
        ignore=papers.ignore,
        read_as="grey" if preprocessing.channels == 1 else "colour",
    )
    like = papers.classes, preprocessing.bounds
    data = open_data(source, options, draw=False, like=like)
    if data.digest == before.digest or sum(map(len, data.splits.values())) != sum(before.images.values()):
        return data.at(preprocessing.size), data.digest == before.digest
    if not {"all", "train"} & set(data.splits):
        return data.at(preprocessing.size), False
    drawn = open_data(source, options, like=like)
    same = drawn.digest == before.digest
    return (drawn if same and not whole else data).at(preprocessing.size), same


def matched(data: ImageSet, papers: Passport, split: str) -> ImageSet:
    """The data with the network's preprocessing, and with labels that count its classes."""
    seen: Split = data.splits[split]
    if data.task != papers.graph.head.task:
        raise DataError(f"{data.name}: data for {data.task}, the network does {papers.graph.head.task}.")
    if data.task == "segmentation" and len(data.classes) > len(papers.classes):
        raise DataError(f"{data.name}: masks of {len(data.classes)} classes; the network knows {len(papers.classes)}.")
    if data.task != "segmentation" and data.classes != papers.classes:
        if unknown := sorted(set(data.classes) - set(papers.classes)):
            raise DataError(
                f"{data.name}: class {unknown[0]} is unknown; the network knows {', '.join(papers.classes)}."
            )
        place = torch.tensor([papers.classes.index(name) for name in data.classes])
        if not isinstance(seen, HeldSplit):
            raise DataError(f"{data.name}: classes {data.classes}; a set this large needs exactly {papers.classes}.")
        seen = HeldSplit(seen.images_BCHW, _counted_so(seen.targets, place))
    return replace(data, classes=papers.classes, preprocessing=papers.preprocessing, splits={split: seen})


def _counted_so(targets: Tensor, place: Tensor) -> Tensor:
    """Labels, or boxes with them, whose classes have other numbers."""
    if not targets.is_floating_point():
        return place[targets]
    labels = targets[..., 0].long()
    return torch.cat(
        [torch.where(labels < 0, labels, place[labels])[..., None].to(targets.dtype), targets[..., 1:]], -1
    )


def predictor(run: Path, least: float = LIKELY) -> Callable[[Path], dict[str, Any]]:
    """From an image file to its class and probability, the path of the mask written into the present folder, or boxes.

    Of several exits the first confident one answers, by the thresholds that were exported; boxes are told from a
    probability on. What is returned raises DataError for a file that is no image.
    """
    network, papers = load_fabric(run)
    preprocessing = papers.preprocessing
    exits = read_record(run).exits
    limits = exits.recommended.limits if exits and exits.recommended else None
    if preprocessing.channels not in (1, 3):
        raise DataError(f"{run}: its images have {preprocessing.channels} channels; image files are read with 1 or 3.")

    def predict(path: Path) -> dict[str, Any]:
        array, _ = read_picture(path, preprocessing.channels, preprocessing.bounds)
        pixels = torch.from_numpy(fitted_array(array, preprocessing.size, preprocessing.fitting).copy())
        prepared, left = preprocessing.normalised(pixels.permute(2, 0, 1)[None]), {}
        if limits:
            stopped = answer_early(network, prepared, limits)
            logits, left = stopped.logits_BK[0], {"exit": int(stopped.exits_B[0]) + 1}
        else:
            with torch.inference_mode():
                logits = network(prepared)[0]
        if not bool(logits.isfinite().all()):
            raise DataError(f"{path}: the network's answer is no finite number.")
        if papers.graph.head.task == "classification":
            odds = logits.softmax(0)
            best = int(odds.argmax())
            named = {"image": str(path), "class": papers.classes[best], "probability": round(float(odds[best]), 6)}
            return named | left
        if papers.graph.head.task == "detection":
            return {"image": str(path), "boxes": _boxes(logits, papers, (array.shape[0], array.shape[1]), least)}
        mask = Image.fromarray(logits.argmax(0).numpy().astype("uint8"))
        if preprocessing.fitting == "stretch":
            mask = mask.resize((array.shape[1], array.shape[0]), Image.Resampling.NEAREST)
        return {"image": str(path), "mask": str(_written(mask, path))}

    return predict


def _boxes(logits_VN: Tensor, papers: Passport, given: Size, least: float) -> list[dict[str, Any]]:
    """The likely boxes of an image of a height and width, the surest first, in its own pixels."""
    found = found_in(logits_VN[None], papers.preprocessing.size)[0]
    times, shift = (
        torch.tensor(part) for part in placement(given, papers.preprocessing.size, papers.preprocessing.fitting)
    )
    most = torch.tensor([given[1], given[0], given[1], given[0]])
    sides_M4 = torch.minimum(((found.boxes_M4 - shift) / times).clamp(min=0), most)
    told = zip(found.labels_M.tolist(), found.odds_M.tolist(), sides_M4.tolist(), strict=True)
    return [
        {
            "class": papers.classes[label],
            "probability": round(odds, 6),
            "box": [round(side, 2) for side in sides],
        }
        for label, odds, sides in told
        if odds >= least
    ]


def _written(mask: Image.Image, path: Path) -> Path:
    """The mask in the present folder, under a name that no file has yet."""
    file, number = Path(f"{path.stem}.mask.png"), 1
    while file.exists():
        number += 1
        file = Path(f"{path.stem}.mask-{number}.png")
    mask.save(file)
    return file
