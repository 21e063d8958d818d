"""The training loop: the same steps whether or not it was stopped in between, in one process or several."""

import csv
import hashlib
import io
import json
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from convfabric.data.augmentation import augmented, cropped_from, fit_for
from convfabric.data.image_sizes import shrunk, smaller
from convfabric.data.imageset import ImageSet, as_targets
from convfabric.errors import GraphError, SettingError, StuckError, TrainingError
from convfabric.evaluation.baseline import is_chance
from convfabric.evaluation.scoring import score
from convfabric.execution.plans import Plan, plan_for
from convfabric.execution.processes import by_first, join
from convfabric.fabric.archive import write_atomically
from convfabric.fabric.module import HEADS, Fabric
from convfabric.graph import Graph
from convfabric.graph.json_format import graph_to_json
from convfabric.graph.sizes import map_sizes
from convfabric.progress import Moment, Row, Watch, unwatched
from convfabric.training.checkpoints import Progress, load_state, save_state
from convfabric.training.gates import Gates
from convfabric.training.interrupts import Interrupts
from convfabric.training.objectives import Turn, objective_of
from convfabric.training.recipe import Recipe
from convfabric.training.teachers import Teacher, answering

SAVE_EVERY_SECONDS = 30.0
GATES = "gates.json"
"""Of a run with gates: for every edge the probability that it stays."""


def train(
    fabric: Fabric,
    data: ImageSet,
    recipe: Recipe,
    *,
    folder: Path | None = None,
    stage: str = "fabric",
    resume: bool = False,
    teacher: Fabric | Teacher | None = None,
    fresh: tuple[str, ...] = HEADS,
    earlier: Sequence[Row] = (),
    device: str = "auto",
    watch: Watch = unwatched,
) -> list[Row]:
    """Train a fabric in place on the train split, and return one row of metrics for each epoch.

    With a folder, ``metrics.csv`` (after the rows of ``earlier`` stages) and the state of the run are
    kept in it, and ``resume`` goes on from that state so that weights and metrics end as if the run had
    never stopped.
    Weights whose names begin as ``fresh`` says are what ``recipe.heads_first`` and ``recipe.trunk_lr`` call heads.
    Raises StuckError where answers stay no better than chance, see ``recipe.give_up``; TrainingError at a loss, or
    gradients, that are not finite, keeping the last good state; KeyboardInterrupt after the state was kept. Started by
    ``torchrun`` or ``accelerate launch`` it shares each batch among the processes.

    >>> from convfabric.data.opening import open_data
    >>> from convfabric.weavers import weave
    >>> fabric = Fabric(weave("nin", channels=4, size=(8, 8), image_channels=1))
    >>> [row["epoch"] for row in train(fabric, open_data("digits"), Recipe(epochs=1), device="cpu")]
    [1]
    """
    shared: dict[str, Any] = {"teacher": teacher, "fresh": fresh, "earlier": earlier, "device": device}
    run = Run(fabric, data, recipe, folder=folder, stage=stage, **shared)
    if resume:
        run.resume()
    with Interrupts() as interrupts:
        run.go_on(watch, interrupts)
    return run.progress.rows


def plan_of(recipe: Recipe, fabric: Fabric) -> Plan:
    """How a recipe trains a fabric on the device where it is.

    >>> from convfabric.weavers import weave
    >>> print(plan_of(Recipe(execution="readable", autocast="float32"), Fabric(weave("nin", channels=4))))
    float32, channels-last
    """
    kind = next(fabric.parameters()).device.type
    return plan_for(fabric.graph, kind, training=True, precision=recipe.autocast, execution=recipe.execution)


class Run:
    """One training run: what stays the same from step to step, and the progress."""

    def __init__(
        self,
        fabric: Fabric,
        data: ImageSet,
        recipe: Recipe,
        *,
        folder: Path | None = None,
        stage: str = "fabric",
        teacher: Fabric | Teacher | None = None,
        fresh: tuple[str, ...] = HEADS,
        earlier: Sequence[Row] = (),
        device: str = "auto",
    ) -> None:
        _check_suits(fabric.graph, data)
        _check_reads_small_images(fabric.graph, data, recipe)
        join(device)
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.fabric = fabric.to(self.accelerator.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        recipe = recipe.fitted(len(data.splits["train"]), data.task)
        self.data, self.recipe, self.stage, self.folder = data, recipe, stage, folder
        self.earlier, self.fresh = list(earlier), fresh
        self.teacher = answering(teacher, data.preprocessing, self.accelerator.device) if teacher else None
        self.augmentation = fit_for(data, **recipe.changes)
        self.images = cropped_from(data, self.augmentation)
        fabric.leave_out(recipe.dropout)
        self.parts = self.accelerator.num_processes * recipe.accumulate
        self.batch = recipe.batch
        if self.batch % self.parts or self.batch // self.parts < 2:
            raise SettingError(
                f"batch={self.batch}: {self.parts} equal parts of at least 2 images are needed; "
                f"the nearest is {max(2, self.batch // self.parts) * self.parts}."
            )
        self.steps_an_epoch = len(data.splits["train"]) // self.batch
        self.steps = self.steps_an_epoch * recipe.epochs
        self.plan = plan_of(recipe, fabric)
        counts = data.class_counts if recipe.balance else ()
        self.objective = objective_of(self.fabric, recipe, self.plan, data.void, data.preprocessing.size, counts)
        self.objective.own.to(self.accelerator.device)
        self.model = self.objective.model
        self.optimiser = _optimiser(self.fabric, self.objective.own, recipe, fresh)
        self.progress = Progress()
        self.identity = {
            "recipe": repr(recipe),
            "data": data.digest,
            "graph": hashlib.sha256(graph_to_json(fabric.graph).encode()).hexdigest()[:16],
            "processes": str(self.accelerator.num_processes),
        }

    @property
    def state_file(self) -> Path | None:
        """Where the state is kept, if it is."""
        return self.folder / f"{self.stage}.state.safetensors" if self.folder else None

    def resume(self) -> None:
        """Goes back to the state that was kept, if one was; SettingError where it is of another run."""
        if self.state_file and self.state_file.is_file():
            trained = {"fabric": self.fabric, "lesson": self.objective.own}
            self.progress = load_state(self.state_file, trained, self.optimiser, self.identity)
            self._write_metrics()

    def go_on(self, watch: Watch, interrupts: Interrupts) -> None:
        """Every step that is left."""
        model, self.optimiser = self.accelerator.prepare(self.model, self.optimiser)
        saved, began, first = time.monotonic(), time.monotonic(), self.progress.step
        while self.progress.step < self.steps:
            epoch, within = divmod(self.progress.step, self.steps_an_epoch)
            for images, targets in self.batches(epoch, within):
                step_loss = self.take_step(model, images, targets)
                self.progress.step += 1
                self.progress.loss_sum += step_loss
                row = self._end_epoch() if self.progress.step % self.steps_an_epoch == 0 else None
                watch(self._moment(step_loss, (time.monotonic() - began) / (self.progress.step - first), row))
                stopping = interrupts.asked
                if row or stopping or time.monotonic() - saved > SAVE_EVERY_SECONDS:
                    self._save()
                    saved = time.monotonic()
                if stopping:
                    raise KeyboardInterrupt
                if row:
                    by_first(self._check_learning)
        self.fabric.eval()
        if self.folder and self.accelerator.is_main_process and isinstance(self.objective.own, Gates):
            write_atomically(self.folder / GATES, json.dumps(self.objective.own.probabilities(), indent=0))

    def batches(self, epoch: int, within: int) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
        """The part of each batch of an epoch that this process takes, from the step within it."""
        count = len(self.data.splits["train"])
        order = torch.randperm(count, generator=self._dice(epoch, 0, 0)).tolist()
        batches = [order[i * self.batch : (i + 1) * self.batch] for i in range(within, self.steps_an_epoch)]
        size = self.batch // self.parts
        mine = range(self.accelerator.process_index * self.recipe.accumulate * size, self.batch, size)
        mine = mine[: self.recipe.accumulate]
        lists = [batch[start : start + size] for batch in batches for start in mine]
        loaded = self.images.batches(lists)
        for step in range(within, self.steps_an_epoch):
            way = (epoch * self.steps_an_epoch + step) / self.steps
            parts = [self._prepared(*next(loaded), self._dice(epoch, step + 1, start // size), way) for start in mine]
            yield [images for images, _ in parts], [targets for _, targets in parts]

    def _dice(self, *where: int) -> torch.Generator:
        """A generator of its own for each epoch, step and part, so that a run can go on from any of them."""
        said = repr((self.recipe.seed, *where)).encode()
        seed = int.from_bytes(hashlib.sha256(said).digest()[:7], "big")
        return torch.Generator().manual_seed(seed)

    def _prepared(self, images: Tensor, targets: Tensor, dice: torch.Generator, way: float) -> tuple[Tensor, Tensor]:
        device, size = self.accelerator.device, self.data.preprocessing.size
        images, targets = images.to(device), targets.to(device)
        changed, targets = augmented(images, targets, self.augmentation, dice, self.data.ignore, size)
        changed, targets = shrunk(changed, targets, smaller(size, self.recipe.sides(way)))
        normal = self.data.preprocessing.normalised(changed)
        return normal.contiguous(memory_format=torch.channels_last), as_targets(targets)

    def take_step(self, model: nn.Module, images: list[Tensor], targets: list[Tensor]) -> float:
        """One step of the optimiser over this process's parts of a batch; the loss over all processes."""
        model.train()
        self.optimiser.zero_grad()
        rate = self.recipe.rate(self.progress.step, self.steps)
        for group in self.optimiser.param_groups:
            group["lr"] = self.recipe.gate_lr if group["gates"] else rate * group["share"]
        total = 0.0
        for part, (batch, wanted) in enumerate(zip(images, targets, strict=True)):
            last = part == len(images) - 1
            with nullcontext() if last else self.accelerator.no_sync(model), self._seeded(part):
                part_loss = self._loss(model, batch, wanted, part) / len(images)
                total += self._finite(self.accelerator.reduce(part_loss.detach(), "mean"), "loss")
                self.accelerator.backward(part_loss)
        if self.progress.step < self.recipe.heads_first * self.steps:
            for name, parameter in self.fabric.named_parameters():
                parameter.grad = parameter.grad if name.startswith(self.fresh) else None
        norm = torch.nn.utils.clip_grad_norm_(self.fabric.parameters(), self.recipe.clip_norm)
        self._finite(norm, "norm of the gradients")
        self.optimiser.step()
        return total

    def _loss(self, model: nn.Module, images: Tensor, targets: Tensor, part: int) -> Tensor:
        dice = random.Random(self._dice(self.progress.step, part, -1).initial_seed())
        with self._autocast():
            with torch.inference_mode():
                teacher = self.teacher(images)[-1].float() if self.teacher else None
            return self.objective.loss(model, images, targets, teacher, Turn(dice, self.progress.step / self.steps))

    @contextmanager
    def _seeded(self, part: int) -> Iterator[None]:
        """Dropout's draws depend on the step alone; other generators are left as they were."""
        device = self.accelerator.device
        with torch.random.fork_rng([device] if device.type == "cuda" else [], device_type=device.type):
            torch.manual_seed(self._dice(self.progress.step, self.accelerator.process_index, part).initial_seed())
            yield

    def _autocast(self) -> AbstractContextManager[Any]:
        return torch.autocast(self.accelerator.device.type, torch.bfloat16, enabled=self.plan.bfloat16)

    def _finite(self, number: Tensor, what: str) -> float:
        """A number of this step, over all processes; where it is not finite the run ends before weights are touched."""
        value = float(number)
        if not isfinite(value):
            self._save()
            kept = f" The state of step {self.progress.step} is kept in {self.state_file}." if self.state_file else ""
            wider = ", or autocast=float32" if self.plan.bfloat16 else ""
            raise TrainingError(
                f"{self.stage}: the {what} of step {self.progress.step + 1} is {value}.{kept} "
                f"A lower lr than {self.recipe.lr} usually helps{wider}."
            )
        return value

    def _end_epoch(self) -> Row:
        scored = self.objective.scored_graph()
        found = score(self.fabric if scored == self.fabric.graph else _Part(self.fabric, scored), self.data, "val")
        epoch = self.progress.step // self.steps_an_epoch
        row = {
            "stage": self.stage,
            "epoch": epoch,
            "lr": self.recipe.rate(self.progress.step - 1, self.steps),
            "train_loss": self.progress.loss_sum / self.steps_an_epoch,
            "val_loss": found.loss,
            "val_accuracy": found.accuracy,
            "val_miou": "" if found.miou is None else found.miou,
            "val_ap50": "" if found.ap50 is None else found.ap50,
            "val_balanced": found.balanced_accuracy or 0.0,
            "chance": int(is_chance(found)),
        }
        self.progress.loss_sum = 0.0
        self.progress.rows.append(row)
        return row

    def _check_learning(self) -> None:
        """StuckError where answers were no better than chance after each epoch so far, and enough of them are over."""
        rows = self.progress.rows
        if len(rows) == self.recipe.last_chance and all(row.get("chance") for row in rows):
            best = max(row["val_balanced"] for row in rows)
            answers = f"at best {best:.1%} of a class's validation images are answered right, the mean of all classes"
            raise StuckError(f"{self.stage}: no better than chance after {len(rows)} epochs, {answers}.")

    def _save(self) -> None:
        if self.state_file and self.folder and self.accelerator.is_main_process:
            trained = {"fabric": self.fabric, "lesson": self.objective.own}
            save_state(self.state_file, trained, self.optimiser, self.progress, self.identity)
            self._write_metrics()

    def _write_metrics(self) -> None:
        if self.folder and self.accelerator.is_main_process:
            write_rows(self.folder / "metrics.csv", [*self.earlier, *self.progress.rows])

    def _moment(self, step_loss: float, seconds_a_step: float, row: Row | None) -> Moment:
        return Moment(
            stage=self.stage,
            epoch=(self.progress.step - 1) // self.steps_an_epoch + 1,
            epochs=self.recipe.epochs,
            step=self.progress.step,
            steps=self.steps,
            loss=step_loss,
            images_per_second=self.batch / max(seconds_a_step, 1e-9),
            seconds_left=(self.steps - self.progress.step) * seconds_a_step,
            row=row,
        )


def write_rows(file: Path, rows: Sequence[Row]) -> None:
    r"""The rows as a CSV file, written whole or not at all.

    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> write_rows(Path(folder.name) / "metrics.csv", [{"epoch": 1, "val_loss": 0.5}])
    >>> (Path(folder.name) / "metrics.csv").read_text()
    'epoch,val_loss\n1,0.5\n'
    >>> folder.cleanup()
    """
    if rows:
        text = io.StringIO()
        table = csv.DictWriter(text, dict.fromkeys(name for row in rows for name in row), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
        write_atomically(file, text.getvalue())


def _check_suits(graph: Graph, data: ImageSet) -> None:
    asked = (graph.head.task, graph.head.classes, graph.entry.image_channels)
    given = (data.task, len(data.classes), data.preprocessing.channels)
    if asked != given:
        one, other = ("{} of {} classes, images of {} channels".format(*them) for them in (asked, given))
        raise SettingError(f"{graph.name} is for {one}; {data.name} is for {other}.")


def _check_reads_small_images(graph: Graph, data: ImageSet, recipe: Recipe) -> None:
    try:
        map_sizes(graph, smaller(data.preprocessing.size, recipe.growing))
    except GraphError as fault:
        raise SettingError(f"growing={recipe.growing}: {fault}") from None


class _Part(nn.Module):
    """A fabric that runs a restriction of its graph."""

    def __init__(self, fabric: Fabric, graph: Graph) -> None:
        super().__init__()
        self.fabric, self.graph = fabric, graph

    def forward(self, images_BCHW: Tensor) -> tuple[Tensor, ...]:
        return self.fabric.forward_exits(images_BCHW, self.graph)


def _optimiser(fabric: Fabric, own: nn.Module, recipe: Recipe, fresh: tuple[str, ...]) -> torch.optim.Optimizer:
    named = list(fabric.named_parameters())
    parts = [[p for _, p in named]]
    if recipe.trunk_lr < 1:
        parts = [[p for name, p in named if name.startswith(fresh) == first] for first in (True, False)]
    groups: list[dict[str, Any]] = []
    for part, share in zip(parts, (1.0, recipe.trunk_lr), strict=False):
        weights, others = [p for p in part if p.ndim > 1], [p for p in part if p.ndim <= 1]
        groups.append({"params": weights, "weight_decay": recipe.weight_decay, "gates": False, "share": share})
        groups.append({"params": others, "weight_decay": 0.0, "gates": False, "share": share})
    if gates := list(own.parameters()):
        plain = {"momentum": 0.0, "nesterov": False} if recipe.optimiser == "sgd" else {}
        groups.append({"params": gates, "weight_decay": 0.0, "gates": True, "share": 1.0, **plain})
    if recipe.optimiser == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr)
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
