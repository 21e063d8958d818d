"""The numbers of a trellis, and which of them go together."""

from dataclasses import dataclass
from typing import Literal

from convfabric.errors import SettingError
from convfabric.weavers.builder import Activation
from convfabric.weavers.trellis_edges import Down, Kind


@dataclass(frozen=True, kw_only=True)
class Trellis:
    """The numbers of a trellis."""

    layers: int = 8
    """Columns of nodes that each scale has, the first included."""
    scales: int = 6
    """Rows of nodes."""
    channels: int = 64
    """Of each node at the finest scale."""
    doubling: bool = False
    """Whether each coarser scale has twice the channels; else all have the same."""
    delay: int = 0
    """Columns by which each scale begins, and ends, behind the finer one. 0: all scales stand in all columns, the
    paper's trellis; as many as layers: one scale behind the other, a way down; in between a band of the trellis."""
    finest: int = 0
    """Scale where the first row stands; images reach it by strided convolutions."""
    operators: Kind = "plain"
    """plain: the paper's 3×3 convolutions. banded: the same between neighbouring channels only, the paper's
    sparse fabric. block: same scale identity + two 3×3, down 3×3 stride 2, up 1×1 and nearest. residual: the same
    function, but identity and branch are edges of their own and the branch has a node inside, so that each can be
    cut alone and the inside narrowed. shortcut: the branch is one 3×3."""
    down: Down = "strided"
    """How maps get coarser. strided: by kernels on every second pixel. pooled: by kernels on every pixel, then the
    largest of four."""
    inner: float = 1.0
    """Channels inside a residual branch, as a multiple of the node's."""
    head: Literal["corner", "all"] = "corner"
    """corner: the paper's, at the coarsest scale (classification) or the finest (segmentation).
    all: every scale of the last layer, which then needs no edges of its own."""
    reach: int = 1
    """Above 1, each node also reads its own scale so many layers before."""
    leap: int = 1
    """Above 1, each node also reads the scales so many away, of the layer before."""
    distances: tuple[int, ...] = ()
    """Of banded operators: how far away further channels are that each reads, where both ends have as many."""
    activation: Activation = "relu"
    """Activation of each node, after its norm. leaky: a tenth of what is below zero is kept. prelu: each channel
    learns how much of it; slower under ONNX Runtime."""
    shared: bool = False
    """Whether the edges of a layer that move alike share their weights, which then see every scale. Where channels
    double, kernels read them by parts, as many as the finest scale has."""

    def __post_init__(self) -> None:
        for name in ("layers", "scales", "channels", "finest", "reach", "leap", "inner"):
            least = {"finest": 0, "inner": 0.01}.get(name, 1)
            if getattr(self, name) < least:
                raise SettingError(f"{name}={getattr(self, name)}: give at least {least}.")
        late = self.delay and not (0 <= self.delay <= self.layers and self.head == "all")
        widest = self.channels << (self.scales - 1 if self.doubling else 0)
        whole = self.shared and self.doubling and self.operators == "block"
        branches, banded = self.operators in ("residual", "shortcut"), self.operators == "banded"
        far = self.leap > 1 and self.doubling and banded
        for wrong, names, why in (
            (self.distances and not banded, "distances operators", "others read every channel"),
            (late, "delay layers head", "a delay is from 0 to the layers, and every scale is read then, head=all"),
            (max(self.distances, default=0) >= widest, "distances channels", "no channel is so far away"),
            (self.reach > max(1, self.layers - 1), "reach layers", "no layer is so far away"),
            (self.leap > max(1, self.scales - 1), "leap scales", "no scale is so far away"),
            (banded and self.down == "pooled", "down operators", "banded edges move along the scales as they are"),
            (self.shared and branches, "shared operators", "branches are edges of their own; share block's"),
            (whole, "shared doubling operators", "where channels double, plain and banded edges can share"),
            (far, "leap doubling operators", "a band joins equal channels, or one and its double"),
        ):
            if wrong:
                said = ", ".join(f"{name}={getattr(self, name)}".replace("True", "true") for name in names.split())
                raise SettingError(f"{said}: {why}.")
