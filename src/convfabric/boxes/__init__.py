"""Boxes around things: where a network looks for them, what it learns of them, and how well it finds them.

Targets are float32 (B, M, 5): class, left, top, right and bottom in pixels; rows without a box have class -1.
Answers are (B, K + 9, N): of N anchors the logits of K classes and of none of them, four offsets, and the anchor
itself. Because an answer says its anchors, a part of a network, which may read fewer maps, is understood like the
whole.

Legend of the suffixes: B images, M boxes, N anchors, K classes, H height, W width.
"""
