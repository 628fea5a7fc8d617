"""Counted operations times a price table."""
