"""Predictions of a bundle: inputs read ahead, batches, results as they come."""
