"""What a network and its training look like: figures, theory."""
