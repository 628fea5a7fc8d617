"""What `python -m eval` does, a module a command: its options, one call, what is printed.

What a command needs is imported when it runs: `--help` needs no torch. From Python, call the `measure` of its room.
"""
