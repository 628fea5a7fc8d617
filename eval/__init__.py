"""Hard-spike accuracy, transfer gap and what follows from them: `python -m eval`."""
