"""The numbers of a training run."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from math import cos, pi
from statistics import fmean
from types import MappingProxyType
from typing import Literal

from convfabric.errors import SettingError
from convfabric.execution.plans import Execution, Precision
from convfabric.graph import Task

Optimiser = Literal["sgd", "adamw"]
Schedule = Literal["cosine", "poly", "steps", "constant"]
SCHEDULES: Mapping[Schedule, Callable[[float], float]] = MappingProxyType(
    {
        "cosine": lambda way: (1 + cos(pi * way)) / 2,
        "poly": lambda way: float((1 - way) ** 0.9),
        "steps": lambda way: 1.0 if way < 0.5 else 0.1 if way < 0.75 else 0.01,
        "constant": lambda way: 1.0,
    }
)
"""The learning rate, as a share of the highest, on the way from 0 to 1."""
Initial = Literal["he", "xavier", "gaussian"]
USUAL_RATES: Mapping[Optimiser, float] = MappingProxyType({"sgd": 0.1, "adamw": 0.002})

GROWN = 0.7
"""Share of the steps after which images that grow have their size."""
HIGHEST_RATE = 100
"""Learning rates above it are slips of the keyboard."""
LEAST_PATIENCE = 5
"""Epochs before a training is given up."""
MOST_BEGINNINGS = 3
"""Trainings that are begun, all in all, where the ones before were given up."""
SLOWER = 0.2
"""Share of the rate that the next one has."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a fabric is trained. None means: fit for the data, and printed before the first step."""

    epochs: int = 0
    """Passes over the training split; 0: as many as usually help so many images."""
    batch: int = 0
    """Images a step, over all processes; 0: fit for so many images."""
    accumulate: int = 1
    """Parts a process takes its share of a batch in, one after another."""
    optimiser: Optimiser = "sgd"
    """sgd has Nesterov's momentum."""
    momentum: float = 0.9
    """Of sgd: share of the step before that a step adds."""
    lr: float = 0.0
    """Highest learning rate; 0: what usually helps the optimiser, 0.1 for sgd and 0.002 for adamw."""
    weight_decay: float = 5e-4
    """On weights; norms and biases are not decayed."""
    warmup: float = 0.1
    """Share of the steps over which the learning rate rises; then it falls as the schedule says."""
    schedule: Schedule = "cosine"
    """cosine: to zero as a cosine does. poly: to zero by the power 0.9 of what is left (Liu et al. 2015). steps: to a
    tenth at half of the steps, and to a hundredth at three quarters, as ResNet and MSDNet were trained. constant: it
    stays, as GridNet was."""
    init: Initial = "he"
    """How kernels are drawn: he, by their outputs (He et al. 2015); xavier, evenly by their inputs (Caffe's, and of the
    paper's sparse fabrics); gaussian, with a spread of 0.01 (of its dense ones). Networks of others have their own."""
    dropout: float = 0.0
    """Share of the values that heads read which are left out in training."""
    label_smoothing: float = 0.0
    """Share of the target spread over all classes."""
    balance: float = 0.5
    """Of classes: 0 counts each image or pixel alike, 1 each class, however few its images or pixels are. Classes of
    as many are learnt the same."""
    dice: float = 0.0
    """Of masks: share of the loss that is Dice, in which every class counts alike; the rest is cross-entropy."""
    hardest: float = 1.0
    """Of masks: share of the pixels that count, those of the largest loss (Shrivastava et al. 2016)."""
    clip_norm: float = 5.0
    """Largest norm of all gradients together; longer ones are shortened to it."""
    distil: float = 0.9
    """Share of the loss that follows the teacher, where there is one; the rest follows the labels."""
    early: float = 1.0
    """Weight of the losses of all exits but the last; 1 in MSDNet, 0.3 in GoogLeNet."""
    temperature: float = 2.0
    """Softens teacher and student alike (Hinton et al. 2015)."""
    subnetworks: int = 0
    """Random sub-networks that are trained in each step beside the whole, which is their teacher in the same step
    (the sandwich rule, Yu & Huang 2019); from 2 on the first of them has every edge at the fewest channels."""
    subnetworks_from: float = 0.0
    """Share of the steps before the first with sub-networks, in which the whole is trained alone."""
    sizes: tuple[float, ...] = ()
    """Smaller images that sub-networks read, drawn for each, as shares of the sides such as 0.57; networks are then cut
    for the size, of these and the whole one, at which they answer best."""
    growing: float = 1.0
    """Share of the sides that images begin with; over seven tenths of the steps they grow to their size. 1: they have
    it from the start."""
    heads_first: float = 0.0
    """Share of the steps, the first ones, in which heads alone are trained."""
    trunk_lr: float = 1.0
    """Learning rate of all but the heads, as a share of theirs."""
    narrowest: float = 0.25
    """Least share of a node's channels that sub-networks keep; 1: all."""
    gates: Literal["none", "bernoulli", "hard-concrete"] = "none"
    """Whether edges have gates that learn to close (Veniat & Denoyer 2018; Louizos et al. 2018)."""
    gate_cost: Literal["macs", "params", "steps"] = "macs"
    """Cost that gates save: multiply-accumulates, parameters, or steps of several machines."""
    gate_target: float = 0.5
    """Share of the whole fabric's cost that gates bring it down to."""
    gate_weight: float = 10.0
    """Loss for being the whole fabric's cost above the target."""
    gate_doubt: float = 1.0
    """Loss for each nat by which a gate is not yet open, or shut, rising from nothing over the second half of the
    training: the most probable gates that the target pays for end open, the others shut."""
    gate_lr: float = 0.1
    """Learning rate of gates, from the first step to the last; sgd without momentum."""
    gate_workers: int = 4
    """Machines whose steps are counted."""
    shift: float | None = None
    """Share of the side by which images move."""
    crop: float | None = None
    """Least share of the sides that images are cut to, anywhere, and brought back to size; 1: none. GridNet's is 0.4.
    Files are read larger for it, at most twice as large."""
    outside: Literal["black", "mirrored"] | None = None
    """What moves in from outside: black, or the image again, mirrored at its border; masks and boxes stop there.
    Photographs with classes have it mirrored unless told otherwise."""
    zoom: float | None = None
    """Share by which images grow or shrink."""
    rotate: float | None = None
    """Degrees by which images turn."""
    flip: bool | None = None
    """Whether images are mirrored left to right."""
    light: float | None = None
    """Share by which brightness and contrast change."""
    colour: float | None = None
    """Spread by which colours move along the principal components that they have in these images, 0.1 in AlexNet."""
    autocast: Precision = "auto"
    """auto: bfloat16 where the machine is fast at it and most of the work is wide enough to gain."""
    execution: Execution = "auto"
    """auto: this package's kernels where they can be built; readable: every edge by itself; compiled: the same as
    auto with torch.compile."""
    give_up: float = 0.25
    """Share of the epochs after which a training is given up whose answers were no better than chance after each of
    them, five at least; 0: never."""
    seed: int = 0
    """Of initial weights, order and augmentation."""

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch", 0), ("accumulate", 1), ("subnetworks", 0), ("gate_workers", 1)):
            if getattr(self, name) < least:
                raise SettingError(f"{name}={getattr(self, name)}: give at least {least}.")
        if self.gates != "none" and self.subnetworks:
            raise SettingError(f"gates={self.gates}, subnetworks={self.subnetworks}: edges are drawn by one of them.")
        if self.sizes and not self.subnetworks:
            raise SettingError(f"sizes={list(self.sizes)}: sub-networks read them; give subnetworks=1 or more too.")
        if self.sizes and self.growing < 1:
            raise SettingError(
                f"sizes={list(self.sizes)}, growing={self.growing}: images are made smaller by one of them."
            )
        if not all(0 < share < 1 for share in self.sizes):
            raise SettingError(f"sizes={list(self.sizes)}: give shares of the sides above 0 and below 1.")
        if not 0 <= self.lr <= HIGHEST_RATE:
            raise SettingError(f"lr={self.lr}: give a number above 0, at most {HIGHEST_RATE}, or 0 for the usual one.")
        for name in ("temperature", "clip_norm", "gate_lr"):
            if not getattr(self, name) > 0:
                raise SettingError(f"{name}={getattr(self, name)}: give a number above 0.")
        for name in ("narrowest", "hardest", "growing"):
            if not 0 < getattr(self, name) <= 1:
                raise SettingError(f"{name}={getattr(self, name)}: give a share above 0, up to 1.")
        shares = (
            "warmup",
            "label_smoothing",
            "distil",
            "gate_target",
            "subnetworks_from",
            "heads_first",
            "trunk_lr",
            "give_up",
            "balance",
            "early",
            "dice",
            "weight_decay",
            "shift",
            "light",
            "colour",
        )
        for name in shares:
            if not 0 <= (getattr(self, name) or 0) <= 1:
                raise SettingError(f"{name}={getattr(self, name)}: give a share from 0 to 1.")
        for name in ("momentum", "dropout", "zoom"):
            if not 0 <= (getattr(self, name) or 0) < 1:
                raise SettingError(f"{name}={getattr(self, name)}: give a share from 0, below 1.")
        if not 0 <= (self.rotate or 0) <= 180:
            raise SettingError(f"rotate={self.rotate}: give degrees from 0 to 180; images turn either way.")
        if self.crop is not None and not 0 < self.crop <= 1:
            raise SettingError(f"crop={self.crop}: give a share of the sides above 0, up to 1.")

    def rate(self, step: int, steps: int) -> float:
        """The learning rate of a step, of so many.

        >>> [round(Recipe(lr=1.0, warmup=0.5).rate(step, 4), 2) for step in range(4)]
        [0.5, 1.0, 1.0, 0.5]
        >>> [round(Recipe(lr=1.0, warmup=0.0, schedule="steps").rate(step, 4), 2) for step in range(4)]
        [1.0, 1.0, 0.1, 0.01]
        """
        rising = round(self.warmup * steps)
        if step < rising:
            return self.lr * (step + 1) / rising
        return self.lr * SCHEDULES[self.schedule]((step - rising) / max(1, steps - rising))

    def sides(self, way: float) -> float:
        """The share of their sides that images have on the way from 0 to 1.

        >>> [round(Recipe(growing=0.5).sides(way), 2) for way in (0.0, 0.35, 0.7, 1.0)]
        [0.5, 0.75, 1.0, 1.0]
        """
        return min(1.0, self.growing + (1 - self.growing) * way / GROWN)

    @property
    def mean_area(self) -> float:
        """The share of their pixels that images have in the mean of all steps.

        >>> Recipe().mean_area, round(Recipe(growing=0.5).mean_area, 2)
        (1.0, 0.71)
        """
        return fmean(self.sides(step / 1000) ** 2 for step in range(1000))

    @property
    def last_chance(self) -> int:
        """The epoch by whose end answers have to be better than chance; 0: none.

        >>> [Recipe(epochs=epochs).last_chance for epochs in (4, 12, 120)]
        [0, 5, 30]
        """
        patience = max(LEAST_PATIENCE, round(self.give_up * self.epochs))
        return patience if self.give_up and patience < self.epochs else 0

    def begun_anew(self, times: int) -> "Recipe":
        """What is tried after so many trainings that were given up, of a recipe whose rate is fitted.

        First a fifth of the rate, then AdamW, which nothing is given up of.

        >>> [(one.optimiser, one.lr, one.give_up) for one in map(Recipe(lr=0.5).begun_anew, range(3))]
        [('sgd', 0.5, 0.25), ('sgd', 0.1, 0.25), ('adamw', 0.002, 0.0)]
        """
        if times == 0:
            return self
        if times < MOST_BEGINNINGS - 1:
            return replace(self, lr=SLOWER * self.lr)
        rate = SLOWER**2 * self.lr if self.optimiser == "adamw" else USUAL_RATES["adamw"]
        return replace(self, optimiser="adamw", lr=rate, give_up=0.0)

    @property
    def changes(self) -> dict[str, float | str]:
        """How images are to be changed, as far as it is said.

        >>> Recipe(zoom=0.1, flip=False).changes
        {'zoom': 0.1, 'flip': False}
        """
        names = ("shift", "crop", "outside", "zoom", "rotate", "flip", "light", "colour")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def fitted(self, images: int, task: Task) -> "Recipe":
        """The recipe with epochs, batch and rate for so many training images, where they were left open.

        >>> [(r.epochs, r.batch) for r in (Recipe().fitted(n, "classification") for n in (150, 1257, 50_000))]
        [(120, 16), (120, 64), (20, 128)]
        >>> [Recipe(optimiser=name).fitted(150, "segmentation").lr for name in ("sgd", "adamw")]
        [0.1, 0.002]
        """
        epochs = self.epochs or min(120, max(20, round(200_000 / images)))
        usual = 128 if images >= 10_000 else 64 if images >= 1000 else 32 if images >= 300 else 16
        batch = min(self.batch or {"segmentation": 8, "detection": 16}.get(task, usual), images)
        return replace(self, epochs=epochs, batch=batch, lr=self.lr or USUAL_RATES[self.optimiser])

    def changed(self, **numbers: object) -> "Recipe":
        """The recipe with some numbers replaced; SettingError for a name it does not have."""
        if unknown := sorted(set(numbers) - {field.name for field in fields(self)}):
            raise SettingError(f"{', '.join(unknown)}: a recipe has {', '.join(f.name for f in fields(self))}.")
        return replace(self, **numbers)  # type: ignore[arg-type]
