import pytest

from convfabric.costs import costs
from convfabric.graph import Graph
from convfabric.latency.prediction import calibrate, predict_from, sample_graphs
from convfabric.weavers import weave

IMAGE = (32, 32)


def made_up(graph: Graph) -> float:
    found = costs(graph, IMAGE)
    return 0.05 + 0.01 * len(graph.edges) + 0.03 * found.macs / 1e6 + 0.2 * found.activation_bytes / 1e6


def test_a_device_that_is_linear_is_predicted_exactly() -> None:
    graph = weave("fabric-small")
    known = [g for seed in range(3) for g in sample_graphs(graph, IMAGE, seed)]
    prediction = predict_from({g: made_up(g) for g in known}, IMAGE)
    for unseen in sample_graphs(graph, IMAGE, seed=5):
        assert prediction.milliseconds(unseen) == pytest.approx(made_up(unseen), rel=1e-3)


def test_calibration_measures_few_graphs_over_the_range_and_states_its_error() -> None:
    asked: list[Graph] = []

    def measured(graph: Graph) -> float:
        asked.append(graph)
        return made_up(graph)

    prediction = calibrate(weave("fabric-small"), IMAGE, measured)
    shares = [costs(graph, IMAGE).macs / costs(asked[0], IMAGE).macs for graph in asked]
    assert shares[0] == 1.0
    assert 2 <= len(asked) <= 5
    assert shares[-1] < 0.2
    assert 0 <= prediction.median_error < 0.5


def test_more_edges_are_never_predicted_to_be_quicker() -> None:
    graph = weave("fabric-small")
    prediction = calibrate(graph, IMAGE, made_up)
    for smaller in sample_graphs(graph, IMAGE, seed=3)[1:]:
        assert prediction.milliseconds(smaller) <= prediction.milliseconds(graph)
