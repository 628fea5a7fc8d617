"""Thresholds and biases set after training."""
