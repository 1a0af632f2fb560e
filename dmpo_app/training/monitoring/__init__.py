"""Monitoring of a round: health, early stopping, evaluation, previews."""
