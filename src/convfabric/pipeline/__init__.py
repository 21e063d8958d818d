"""The main jobs, as readable lists of steps."""
