"""Hard-spike accuracy, transfer gap and what follows from them: `hardspike eval`."""
