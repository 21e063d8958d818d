"""From a trained fabric to a smaller network: what is worth keeping, how it is chosen, and surgery on weights."""
