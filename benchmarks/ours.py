"""Networks cut from one fabric for accuracy_per_ms.py: found by evolution, drawn, or as quick as another contestant."""

import random
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from statistics import fmean, median
from typing import Any

import torch

from contest import MEGA, Contest, kept, model_of, rate_of
from convfabric.choice.evolution import Evolution
from convfabric.cutting.cutter import HEADROOM
from convfabric.cutting.fitness import Judge
from convfabric.cutting.norm_statistics import refresh
from convfabric.cutting.surgery import extract, ranked
from convfabric.cutting.worth import channel_worth
from convfabric.evaluation.scoring import score
from convfabric.execution.folding import folded
from convfabric.fabric.archive import load_fabric, passport, save_fabric
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph
from convfabric.graph.subnetworks import Sampler
from convfabric.latency.devices import measure
from convfabric.latency.drafts import drafted
from convfabric.latency.survey import Survey, survey
from convfabric.latency.target import Target
from convfabric.training.loop import train
from standings import Row, budgets_of, filled
from timed import timed_fabric

TURNS, ATTEMPTS = 7, 4


def our_fabric(contest: Contest, source: str = "fabric") -> tuple[Fabric, float]:
    """The trained fabric that a part of the configuration describes, and its rate; several parts may share it."""
    numbers = contest.numbers[source]
    whole = numbers.get("whole", source)
    graph = contest.woven(numbers["network"], numbers["numbers"])
    parts = {name: numbers[name] for name in ("subnetworks", "narrowest", "subnetworks_from") if name in numbers}
    sampler, dice = Sampler.of(graph, numbers["narrowest"], contest.size), random.Random(0)
    drawn = fmean(contest.macs(sampler.draw(dice)) for _ in range(100))
    a_step = numbers["subnetworks"] * (1 - numbers.get("subnetworks_from", 0.0))
    an_image = 3 * (contest.macs(graph) + a_step * drawn)
    every = contest.numbers["tera_macs"] * len(contest.numbers["budgets"])

    def tried(rate: float, cost: float) -> float:
        torch.manual_seed(contest.seed)
        fabric = Fabric(graph)
        recipe = contest.recipe(contest.epochs(len(contest.numbers["budgets"]) * cost / 2, an_image), rate, **parts)
        train(fabric, contest.watched, recipe, device="cpu")
        return score(fabric, contest.data, "val").headline

    rate = rate_of(contest, numbers.get("rate", whole), tried)
    recipe = contest.recipe(contest.epochs((1 - numbers["finetune"]) * every, an_image), rate, **parts)
    fabric, _ = timed_fabric(graph, contest.watched, recipe, contest.work / f"whole-{whole}", "cpu")
    print(whole, "on val", score(fabric, contest.data, "val").headline, flush=True)
    return fabric if numbers["subnetworks"] else ranked(fabric, channel_worth(fabric, contest.data)), rate


def from_fabric(name: str, source: str = "fabric", search: bool = True) -> Callable[[Contest], None]:
    """Networks cut from the fabric, found by evolution or drawn; where there is a teacher it is the next larger one."""

    def contestant(contest: Contest) -> None:
        budgets, cost = budgets_of(name, contest.numbers), contest.numbers["tera_macs"]
        if contest.has(name, budgets):
            return
        fabric, rate = our_fabric(contest, source)
        judge, teacher = Judge.of(fabric, contest.data, contest.recipe(1, rate)), fabric
        for budget in budgets:
            folder = contest.work / f"{name}-{budget:g}"

            def made(budget: float = budget, teacher: Fabric = teacher, folder: Path = folder) -> tuple[Fabric, Row]:
                graph = picked(contest, contest.numbers[source], fabric, budget, judge if search else None)
                network, facts = tuned(contest, contest.numbers[source], fabric, graph, teacher, rate, cost)
                save_fabric(folder, network, passport(network, contest.data))
                return network, facts

            kept(contest, name, budget, made)
            teacher = load_fabric(folder)[0]

    return contestant


def as_quick(name: str) -> Callable[[Contest], None]:
    """Networks cut from a fabric to the milliseconds that another contestant's take here; each has the cost of that."""

    def contestant(contest: Contest) -> None:
        numbers, cost, budgets = contest.numbers[name], contest.numbers["tera_macs"], budgets_of(name, contest.numbers)
        if contest.has(name, budgets):
            return
        fabric, rate = our_fabric(contest, name)
        judge = Judge.of(fabric, contest.data, contest.recipe(1, rate))
        found = survey(passport(fabric, contest.data), Target(), numbers["narrowest"], print)
        for budget in budgets:

            def made(budget: float = budget) -> tuple[Fabric, Row]:
                other = filled(model_of(contest, numbers["as_quick_as"], budget))
                graph = quick(contest, numbers["trials"], found, judge, other)
                return tuned(contest, numbers, fabric, graph, fabric, rate, cost)

            kept(contest, name, budget, made)

    return contestant


def quick(contest: Contest, trials: int, found: Survey, judge: Judge, other: bytes) -> Graph:
    """The best sub-network that an evolution finds among those that take no longer than a model, measured in turns."""
    size, aim = (3, *contest.size), HEADROOM
    for _ in range(ATTEMPTS):
        allowed = aim * median(measure(other, size).fastest_block_ms for _ in range(TURNS))

        def fits(graph: Graph, allowed: float = allowed) -> bool:
            return found.prediction.milliseconds(graph) <= allowed

        best = evolved(found.sampler, fits, judge, trials, contest.seed)
        model = drafted(folded(Fabric(best).eval()), torch.zeros(1, *size))
        turns = [(measure(model, size).fastest_block_ms, measure(other, size).fastest_block_ms) for _ in range(TURNS)]
        taken, most = (median(times) for times in zip(*turns, strict=True))
        print(f"{contest.macs(best) / MEGA:.2f} M MACs: {taken:.3f} ms, {most:.3f} allowed", flush=True)
        if taken <= most:
            return best
        aim *= HEADROOM * most / taken
    raise SystemExit(f"no sub-network was found in {ATTEMPTS} attempts that takes at most {most:.3f} ms.")


def picked(contest: Contest, numbers: Mapping[str, Any], fabric: Fabric, budget: float, judge: Judge | None) -> Graph:
    """A sub-network under a budget, the best that is found, or without a judge one by chance."""
    sampler = Sampler.of(fabric.graph, numbers["narrowest"], contest.size)
    fits = partial(under, contest, budget)
    if judge is None:
        evolution, dice = (
            Evolution(sampler=sampler, fits=fits, fitness=lambda graphs: [0.0] * len(graphs)),
            random.Random(contest.seed + 1),
        )
        return evolution.grown(evolution.repaired(sampler.draw(dice), dice), dice)
    return evolved(sampler, fits, judge, numbers["trials"], contest.seed)


def evolved(sampler: Sampler, fits: Callable[[Graph], bool], judge: Judge, trials: int, seed: int) -> Graph:
    """The best sub-network that an evolution finds, from the best that are known."""
    starts = sorted(judge.known, key=judge, reverse=True)[:4]
    return Evolution(sampler=sampler, fits=fits, fitness=judge.all).run(starts, trials, seed)[0].graph


def tuned(
    contest: Contest,
    numbers: Mapping[str, Any],
    fabric: Fabric,
    graph: Graph,
    teacher: Fabric,
    rate: float,
    cost: float,
) -> tuple[Fabric, Row]:
    """A sub-network, trained on with its part of a cost."""
    network = refresh(extract(fabric, graph), contest.data, contest.recipe(1, rate))
    inherited = score(network, contest.data, "val").headline
    taking_after = numbers["finetune_distil"]
    taught = teacher if taking_after else None
    an_image = 3 * contest.macs(graph) + (contest.macs(taught) if taught else 0)
    epochs = contest.epochs(numbers["finetune"] * cost, an_image)
    tuning = contest.recipe(epochs, rate * numbers["finetune_lr"], distil=taking_after)
    train(network, contest.watched, tuning, teacher=taught, device="cpu")
    return network, {"rate": rate, "inherited val %": round(100 * inherited, 2)}


def under(contest: Contest, budget: float, graph: Graph) -> bool:
    """Whether a graph is under so many million multiply-accumulates."""
    return contest.macs(graph) <= budget * MEGA
