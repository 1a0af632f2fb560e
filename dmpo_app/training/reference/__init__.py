"""The reference model's errors: computed, cached, prefetched; margins and the calibration of beta."""
