"""Gates: unbiased gradients, costs, schedules, and that they close."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from convfabric.data.opening import open_data
from convfabric.errors import SettingError
from convfabric.fabric.archive import load_fabric, read_tensors
from convfabric.fabric.module import Fabric
from convfabric.graph import Graph, Place
from convfabric.graph.costs import costs, edge_costs
from convfabric.graph.laws import check
from convfabric.graph.parallel_steps import parallel_steps
from convfabric.operators import Identity, basic_block, projection
from convfabric.pipeline.announcements import said_gates
from convfabric.runs.job import job_from
from convfabric.training.gates import Gates, reinforced
from convfabric.training.loop import Run, train
from convfabric.training.recipe import Recipe
from convfabric.weavers import Draft, Purpose, Trellis, weave, weave_trellis

IMAGE = (8, 8)


def six_edges() -> Graph:
    """A B-CNF of six edges, all of them gated."""
    graph = weave("b-cnf", layers=2, scales=2, channels=3, size=IMAGE, classes=3)
    assert len(graph.edges) == 6
    return graph


def objective(fabric: Fabric, gates: Gates, images: Tensor, targets: Tensor, values_E: Tensor) -> Tensor:
    """(B,) loss and price of the cost when every image has the same gates."""
    mapping = {name: values_E[i] for i, name in enumerate(gates.names)}
    logits = fabric.forward_exits(images, gates=mapping)[-1]
    over = (gates.cost(values_E[None]) - gates.recipe.gate_target).clamp(min=0)
    return torch.nn.functional.cross_entropy(logits, targets, reduction="none") + gates.recipe.gate_weight * over


def outcomes(count: int) -> Iterator[Tensor]:
    yield from (torch.tensor(values, dtype=torch.float64) for values in product((0.0, 1.0), repeat=count))


def test_reinforce_is_on_average_the_gradient_of_the_expected_objective() -> None:
    torch.manual_seed(0)
    graph = six_edges()
    fabric = Fabric(graph).double().eval()
    gates = Gates(graph, Recipe(gates="bernoulli", gate_target=0.3, gate_weight=2.0), IMAGE).double()
    gates.logits_E.data = torch.linspace(-1.5, 1.5, 6, dtype=torch.float64)
    images, targets = torch.randn(2, 3, *IMAGE, dtype=torch.float64), torch.tensor([0, 2])
    with torch.no_grad():
        losses = torch.stack([objective(fabric, gates, images, targets, values) for values in outcomes(6)])
    likely = torch.stack([_log_probability(gates, values).exp() for values in outcomes(6)])
    [exact] = torch.autograd.grad((likely[:, None] * losses).mean(1).sum(), gates.logits_E)

    total = torch.zeros(6, dtype=torch.float64)
    drawn = list(outcomes(6))
    for first, second in product(range(64), repeat=2):
        logs = torch.stack([_log_probability(gates, drawn[first]), _log_probability(gates, drawn[second])])
        rewards = -torch.stack([losses[first, 0], losses[second, 1]])
        [found] = torch.autograd.grad(reinforced(logs, rewards), gates.logits_E)
        total += found * (likely[first] * likely[second]).detach()
    torch.testing.assert_close(total, exact, rtol=1e-9, atol=1e-12)
    assert exact.abs().min() > 1e-6


def _log_probability(gates: Gates, values_E: Tensor) -> Tensor:
    open_E = torch.sigmoid(gates.logits_E)
    return (values_E * open_E.log() + (1 - values_E) * (1 - open_E).log()).sum()


def test_draws_have_the_probabilities_they_say_and_their_logarithms() -> None:
    torch.manual_seed(0)
    gates = Gates(six_edges(), Recipe(gates="bernoulli"), IMAGE)
    gates.logits_E.data = torch.linspace(-2, 2, 6)
    draw = gates.draw(20_000)
    torch.testing.assert_close(draw.values_BE.mean(0), torch.sigmoid(gates.logits_E.detach()), atol=0.02, rtol=0)
    assert draw.log_probability_B is not None
    torch.testing.assert_close(draw.log_probability_B[0], _log_probability(gates, draw.values_BE[0]))


def test_hard_concrete_draws_are_open_as_often_as_said_and_pass_gradients() -> None:
    torch.manual_seed(0)
    gates = Gates(six_edges(), Recipe(gates="hard-concrete"), IMAGE)
    gates.logits_E.data = torch.linspace(-2, 2, 6)
    values = gates.draw(20_000).values_BE
    said = torch.tensor([gates.probabilities()[name] for name in gates.names])
    torch.testing.assert_close((values > 0).float().mean(0), said, atol=0.02, rtol=0)
    assert ((values == 0) | (values == 1)).float().mean() > 0.3
    gates.logits_E.data = torch.linspace(0.5, 2, 6)
    gates.cost(gates.draw(8).values_BE).mean().backward()
    assert gates.logits_E.grad is not None
    assert bool((gates.logits_E.grad > 0).all())


@pytest.mark.parametrize("network", ["b-cnf", "resnet-fabric"])
@pytest.mark.parametrize("cost", ["macs", "params"])
def test_the_cost_of_open_gates_is_that_of_the_edges(network: str, cost: str) -> None:
    graph = weave(network, size=(32, 32), channels=4)
    gates = Gates(graph, Recipe(gates="bernoulli", gate_cost=cost), (32, 32))  # type: ignore[arg-type]
    torch.manual_seed(1)
    values = torch.randint(0, 2, (5, len(gates.names))).float()
    kind = {"macs": "macs", "params": "parameters"}[cost]
    every = {edge.name: getattr(edge_costs(graph, edge, (32, 32)), kind) for edge in graph.edges}
    for row, share in zip(values, gates.cost(values), strict=True):
        shut = {name for name, value in zip(gates.names, row, strict=True) if value == 0}
        kept = sum(value for name, value in every.items() if name not in shut)
        assert float(share) == pytest.approx(kept / sum(every.values()), rel=1e-5)
    assert float(gates.cost(torch.ones(1, len(gates.names)))) == pytest.approx(1.0)


def test_an_open_gate_that_no_way_leads_through_is_free_and_a_closed_one_pays_for_what_it_draws() -> None:
    gates = Gates(six_edges(), Recipe(gates="bernoulli"), IMAGE)
    whole = float(gates.cost(torch.ones(1, 6)))
    gates.logits_E.data[gates.column["L1S0_L1S1"]] = -3.0
    freed = gates.costs["L0S0_L1S0"] + gates.costs["L0S1_L1S0"]
    assert float(gates.cost(torch.ones(1, 6))) == pytest.approx(whole - freed / gates.whole)


@pytest.mark.parametrize("target", [0.3, 0.5, 0.8])
def test_what_the_target_pays_for_is_a_network_under_it_of_the_most_probable_edges(target: float) -> None:
    graph = weave("b-cnf", layers=3, scales=3, channels=4, size=IMAGE)
    gates = Gates(graph, Recipe(gates="bernoulli", gate_target=target), IMAGE)
    torch.manual_seed(3)
    gates.logits_E.data = torch.randn(len(gates.names)) + torch.tensor([3.0 * ("S2" in name) for name in gates.names])
    found = gates.affordable()
    assert graph.restrict(found).edge_names == found
    whole = sum(gates.costs.values()) + gates.fixed
    assert sum(gates.costs[name] for name in found) + gates.fixed <= 1.05 * target * whole
    draw = gates.draw(4)
    (gates.loss(draw, torch.zeros(4), way=1.0) - gates.loss(draw, torch.zeros(4), way=0.5)).backward()
    assert gates.logits_E.grad is not None
    slopes = dict(zip(gates.names, gates.logits_E.grad.tolist(), strict=True))
    assert {name for name, slope in slopes.items() if slope < 0} == found & set(gates.names)


def test_a_closed_gate_is_a_missing_edge_in_every_network_that_can_be_gated() -> None:
    torch.manual_seed(0)
    for network in ("b-cnf", "resnet-fabric"):
        graph = weave(network, size=(32, 32), channels=4)
        fabric, gates = Fabric(graph).eval(), Gates(graph, Recipe(gates="bernoulli"), (32, 32))
        shut = set(gates.names[::3])
        part = graph.restrict(graph.edge_names - shut)
        images = torch.randn(2, 3, 32, 32)
        mapping = {name: torch.tensor(float(name not in shut)) for name in gates.names}
        torch.testing.assert_close(fabric.forward_exits(images, gates=mapping)[-1], fabric(images, part))


def test_a_graph_whose_nodes_normalise_has_no_gates() -> None:
    with pytest.raises(SettingError, match="so no edge can be gated; b-cnf and resnet-fabric"):
        Gates(weave("fabric-tiny"), Recipe(gates="bernoulli"), IMAGE)


def test_gates_close_until_the_cost_is_near_its_target_and_the_run_goes_on_after_a_stop(tmp_path: Path) -> None:
    data = open_data("digits")
    graph = weave("b-cnf", layers=3, scales=3, channels=8, size=IMAGE, image_channels=1)
    recipe = Recipe(epochs=6, lr=0.05, gates="hard-concrete", gate_target=0.5, gate_lr=0.5)
    ends = []
    for stops in (0, 40):
        torch.manual_seed(0)
        fabric, folder = Fabric(graph), tmp_path / str(stops)

        def stop(moment: object, at: int = stops) -> None:
            if at and getattr(moment, "step", 0) == at:
                raise RuntimeError("stopped")

        try:
            rows = train(fabric, data, recipe, folder=folder, device="cpu", watch=stop)
        except RuntimeError:
            rows = train(fabric, data, recipe, folder=folder, resume=True, device="cpu")
        run = Run(Fabric(graph), data, recipe, folder=folder, device="cpu")
        run.resume()
        assert isinstance(run.objective.own, Gates)
        ends.append(run.objective.own)
    assert torch.equal(ends[0].logits_E, ends[1].logits_E)
    found = ends[0].chosen()
    assert costs(found, IMAGE).macs < 0.75 * costs(graph, IMAGE).macs
    assert rows[-1]["val_accuracy"] > 0.5
    assert 0 < rows[-1]["train_loss"] < rows[0]["train_loss"]


def test_parallel_steps_of_hand_made_graphs() -> None:
    chain = weave_trellis(Trellis(layers=4, scales=1, channels=4))
    assert [parallel_steps(chain, workers) for workers in (1, 3)] == [5, 5]
    draft = Draft("fork", Purpose())
    start = draft.enter(Place(0, 0), basic_block(), 4)
    sides = [draft.put(Place(1, 0, lane), 4, (start, projection())) for lane in range(4)]
    draft.answer(draft.put(Place(2, 0), 4, *((side, Identity()) for side in sides)))
    fork = check(draft.finished())
    assert [parallel_steps(fork, workers) for workers in (1, 2, 4, 9)] == [7, 5, 4, 4]


def test_more_machines_never_need_more_steps_and_one_needs_every_task() -> None:
    for seed in range(8):
        graph = weave("b-cnf", layers=2 + seed % 3, scales=2 + seed % 2, channels=2)
        steps = [parallel_steps(graph, workers) for workers in range(1, 9)]
        assert steps == sorted(steps, reverse=True)
        added = sum(len(graph.arriving(n.place)) + (n.place == graph.entry.place) > 1 for n in graph.nodes)
        assert steps[0] == 1 + len(graph.edges) + added + len(graph.heads)


def test_a_run_with_gates_is_cut_by_what_they_learnt(tmp_path: Path) -> None:
    from convfabric.pipeline.fit import fit
    from convfabric.progress import Listener

    network = {"network": "b-cnf", "layers": 3, "scales": 3, "channels": 8}
    settings = {"gates": "bernoulli", "gate_lr": 0.5, "lr": 0.05, "epochs": 4, "macs": "40%", "search": "exact"}
    record: Any = fit(
        "digits", tmp_path / "run", listener=Listener(say=lambda text: None), **network, **settings
    ).record
    kept = set(load_fabric(tmp_path / "run")[0].graph.edge_names)
    tuned = json.loads(read_tensors(tmp_path / "run" / "finetune.state.safetensors")[1]["identity"])["recipe"]
    assert "gates='none'" in tuned
    assert "subnetworks=0" in tuned
    worth = record.cut.worth
    assert set(worth) == load_fabric(tmp_path / "run" / "fabric")[0].graph.edge_names
    assert all(0 <= value <= 1 for value in worth.values())
    assert len(set(worth.values())) > 3
    assert record.network.macs <= 0.4 * record.fabric.macs
    gone = set(worth) - kept
    assert sum(worth[name] for name in kept) / len(kept) > sum(worth[name] for name in gone) / len(gone)


def test_what_gates_came_to_is_said_beside_their_target(tmp_path: Path) -> None:
    graph, data = weave("b-cnf", layers=2, scales=2, channels=3, size=IMAGE, image_channels=1), open_data("digits")
    job = job_from({"data": "digits", "network": "b-cnf", "gates": "bernoulli", "gate_target": 0.7})
    likely = {edge.name: 0.9 for edge in graph.edges} | {"L0S0_L1S0": 0.2, "L0S1_L1S0": 0.1}
    (tmp_path / "gates.json").write_text(json.dumps(likely))
    left = costs(graph.restrict([name for name, value in likely.items() if value > 0.5]), IMAGE).macs
    share = f"{left / costs(graph, IMAGE).macs:.0%}"
    said = f"gates: 4 of 6 edges open, {share} of the fabric's MACs; the target was 70% of its MACs"
    assert said_gates(tmp_path, graph, job, data) == said
    (tmp_path / "gates.json").write_text(json.dumps(dict.fromkeys(likely, 0.1)))
    assert said_gates(tmp_path, graph, job, data) == "gates: 0 of 6 edges open, and no way leads through them"
