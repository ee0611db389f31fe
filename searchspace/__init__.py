"""Search space: architectures as values, their lowering to a graph, and what is derived from it."""
