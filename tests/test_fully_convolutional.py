"""A trained classifier answers for every pixel with the same weights."""

import pytest
import torch

from convfabric.errors import GraphError
from convfabric.fabric.fully_convolutional import fully_convolutional
from convfabric.fabric.module import Fabric
from convfabric.weavers import weave

CLASSIFIERS = {
    "vgg": {"channels": 3, "top": "full", "hidden": 8},
    "alexnet": {"channels": 6, "hidden": 8, "stem": "small", "pools": "padded"},
    "vgg by the mean": {"channels": 3},
    "resnet": {"channels": 4, "blocks": (1, 1)},
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_scores_over_the_whole_map_are_the_classifier_s(name: str) -> None:
    torch.manual_seed(0)
    size = (96, 64)
    classifier = Fabric(weave(name.partition(" ")[0], size=size, classes=5, **CLASSIFIERS[name])).eval()
    fabric, images = fully_convolutional(classifier), torch.randn(2, 3, *size)
    assert sum(p.numel() for p in fabric.parameters()) == sum(p.numel() for p in classifier.parameters())
    assert fabric(torch.randn(1, 3, 128, 160)).shape == (1, 5, 128, 160)
    [read] = fabric.graph.head.reads
    weights = fabric.heads["head"]
    with torch.no_grad():
        last = fabric.forward_features(images)[str(read)]
        weight = weights.get_submodule("reads").get_parameter(f"{read}.weight")
        scores = torch.einsum("kc,bchw->bkhw", weight, last) + weights.get_parameter("bias")[:, None, None]
        wanted = classifier(images)
    if "hidden" in CLASSIFIERS[name]:  # the pixel on which the kernel of the first hidden layer covers the map
        middle = [(side - 1) // 2 for side in last.shape[-2:]]
        found = scores[:, :, middle[0], middle[1]]
    else:
        found = scores.mean((2, 3))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_what_draws_a_map_together_is_refused() -> None:
    with pytest.raises(GraphError, match="draws a map together"):
        fully_convolutional(Fabric(weave("vgg", channels=2, top="global max", hidden=4)))
    with pytest.raises(GraphError, match="a classifier with one exit"):
        fully_convolutional(Fabric(weave("msdnet", exits=2, base=1)))
