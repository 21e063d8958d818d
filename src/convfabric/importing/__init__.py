"""Other people's networks as graphs with weights: traced, placed on the grid, and proved to answer alike."""
