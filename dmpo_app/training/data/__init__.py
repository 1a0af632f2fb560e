"""Training data: tensors of pairs, slots, rankings, encoded data sets."""
