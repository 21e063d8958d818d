"""The same function as the readable executor's, sooner: plans, and the kernels they call."""
