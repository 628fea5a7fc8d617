"""Accuracy on corrupted input and with faults."""
