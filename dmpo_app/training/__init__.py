"""Training, from votes to a published adapter: the dataset, one step, a round in slices, the scheduler of rounds."""
