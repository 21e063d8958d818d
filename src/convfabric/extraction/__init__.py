"""Worth of edges, surgery on weights, statistics refreshed."""
