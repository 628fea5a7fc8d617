"""Variants of a training run over several seeds: planned, trained by as many processes as there are, compared."""
