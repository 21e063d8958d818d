"""A graph made runnable, with the weights that follow it and its files."""
