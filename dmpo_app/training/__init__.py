"""From votes to a published adapter: the dataset, one step, a round in slices, the worker that decides when."""
