"""Networks as fabrics of 3×3 edges: the constructions by which the paper's trellis is any convolutional network."""
