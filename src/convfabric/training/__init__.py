"""Recipe, losses, loop, checkpoints."""
