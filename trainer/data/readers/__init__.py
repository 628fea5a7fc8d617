"""File formats of event cameras."""
