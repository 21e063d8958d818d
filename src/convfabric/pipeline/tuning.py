"""Fine-tuning of what was cut: which of several finalists, and whether it helped."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from torch import Tensor

from convfabric.cutting.cutter import Cut
from convfabric.cutting.fitness import Judge
from convfabric.cutting.norm_statistics import refresh
from convfabric.data.imageset import ImageSet
from convfabric.environment import process_count
from convfabric.evaluation.image_losses import image_losses, surely_less
from convfabric.evaluation.scoring import score
from convfabric.execution.processes import by_first
from convfabric.fabric.archive import read_tensors
from convfabric.fabric.module import Fabric
from convfabric.graph.costs import costs
from convfabric.graph.json_format import parsed
from convfabric.operators import Size
from convfabric.pipeline.teachers import teacher_there
from convfabric.progress import Listener, Row
from convfabric.report.words import said_macs
from convfabric.runs.job import Job
from convfabric.runs.record import TuningRecord
from convfabric.training.estimate import estimate
from convfabric.training.loop import train
from convfabric.training.recipe import Recipe
from convfabric.training.teachers import Teacher

BRIEF = 0.1
"""Share of the epochs of fine-tuning that each finalist gets."""
GENTLE = 0.25
"""Share of the usual rate that finalists are compared at: after so few epochs the usual one has undone more than it
taught."""


@dataclass(frozen=True, kw_only=True)
class Tuner:
    """Fine-tunes networks that were cut from the trained fabric of a run."""

    run: Path
    job: Job
    data: ImageSet
    whole: Fabric
    listener: Listener

    def best_of(self, cuts: Sequence[Cut]) -> Cut:
        """The cut that does best once each was fine-tuned briefly.

        They are compared at a gentle rate and after as many epochs; the largest is it unless another has surely less
        loss on validation images.
        """
        if len(cuts) == 1 or self.job.procedure.finetune == 0:
            return cuts[0]
        self.listener.say(f"fine-tuning {len(cuts)} networks briefly, to go on with the best of them")
        best, *others = sorted(cuts, key=_macs, reverse=True)
        epochs = max(1, round(BRIEF * self.recipe(best).epochs))
        losses_N = self._briefly(best, epochs)
        for other in others:
            of_other_N = self._briefly(other, epochs)
            if surely_less(of_other_N, losses_N):
                best, losses_N = other, of_other_N
        return best

    def _briefly(self, cut: Cut, epochs: int) -> Tensor:
        """The losses of validation images after a few epochs at a gentle rate; a copy is tuned."""
        network, usual, data = copy.deepcopy(cut.network), self.recipe(cut), self.data.at(cut.size)
        brief = usual.changed(epochs=epochs, lr=GENTLE * usual.lr)
        train(network, data, brief, teacher=self._teacher(cut.size), device=self.job.procedure.accelerator)
        losses_N = by_first(lambda: image_losses(network, data, "val"))
        edges = f"{len(network.graph.edges)} edges, {said_macs(_macs(cut))}"
        if cut.precision != "float32":
            edges += f", for {cut.precision}"
        if cut.size != self.data.preprocessing.size:
            edges += f" at {cut.size[1]}×{cut.size[0]} pixels"
        after = f"{epochs} epoch{'s' * (epochs > 1)} at a rate of {brief.lr:.2g}"
        self.listener.say(f"{edges}: a loss of {losses_N.mean():.3f} nats on validation images after {after}")
        return losses_N

    def recipe(self, cut: Cut) -> Recipe:
        """The recipe by which a network is fine-tuned."""
        whole = costs(self.whole.graph, self.data.preprocessing.size).macs
        cheaper = whole / max(1, _macs(cut))
        return self.job.tuning(len(self.data.splits["train"]), self.data.task, cheaper)

    def _teacher(self, size: Size) -> Fabric | Teacher | None:
        """Whom networks follow while they are fine-tuned for images of a size; the fabric reads them at its own."""
        if not self.job.procedure.finetune_distil:
            return None
        if size == self.data.preprocessing.size:
            return self._known_teacher or self.whole
        return self._known_teacher or Teacher(fabric=self.whole, preprocessing=self.data.preprocessing)

    @cached_property
    def _known_teacher(self) -> Teacher | None:
        return teacher_there(self.run, self.job, self.data)

    def tuned(self, folder: Path, cut: Cut, resume: bool) -> tuple[Fabric, TuningRecord]:
        """The network with its final weights, and how it came to them; the state is kept in a folder.

        Where fine-tuning made answers on validation images worse than chance explains, those that the search had not
        seen, the network is kept as it was before.
        """
        network, data = cut.network, self.data.at(cut.size)
        after_pruning = by_first(lambda: score(network, data, data.scored_split))
        refresh(network, data, self.job.recipe)
        after_recalibration = by_first(lambda: score(network, data, data.scored_split))
        before, unseen = copy.deepcopy(network), Judge.unseen(data)
        on_val = by_first(lambda: score(network, unseen, "val"))
        if self.job.procedure.finetune:
            self._finetune(folder, cut, data, resume)
        tuned_on_val = by_first(lambda: score(network, unseen, "val"))
        worse = tuned_on_val.surely_below(on_val)
        if worse:
            change = f"from {on_val.headline:.2%} to {tuned_on_val.headline:.2%}"
            apart = f"on {on_val.images} validation images kept apart for that"
            kept = "the network is kept as before; more epochs help"
            self.listener.say(f"fine-tuning took the score {change} {apart}: {kept}")
        tuning = TuningRecord(
            after_pruning=after_pruning,
            after_recalibration=after_recalibration,
            fine_tuned=self.job.procedure.finetune > 0 and not worse,
        )
        return before if worse else network, tuning

    def _finetune(self, folder: Path, cut: Cut, data: ImageSet, resume: bool) -> None:
        """Further epochs, in place."""
        network, recipe, device = cut.network, self.recipe(cut), self.job.procedure.accelerator
        teacher = self._teacher(cut.size)
        if process_count() == 1:
            part = costs(network.graph, cut.size).macs / costs(self.whole.graph, self.data.preprocessing.size).macs
            takes = estimate(network, data, recipe, teacher, device)
            self.listener.say(f"fine-tuning the network, {part:.0%} of the whole's MACs, takes {takes}")
        train(
            network,
            data,
            recipe,
            folder=folder,
            stage="finetune",
            resume=resume,
            teacher=teacher,
            earlier=_rows_of_training(folder / "fabric.state.safetensors"),
            device=device,
            watch=self.listener.watch,
        )


def _macs(cut: Cut) -> int:
    return costs(cut.network.graph, cut.size).macs


def _rows_of_training(state: Path) -> list[Row]:
    """The rows of the fabric's own training, where its state is in the same folder."""
    if not state.is_file():
        return []
    _, texts = read_tensors(state)
    rows: list[Row] = parsed(texts.get("progress", "{}"), str(state)).get("rows", [])
    return rows
