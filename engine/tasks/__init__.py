"""Tasks: datasets and optimizees, as batches and a loss of flat parameters."""
