"""What `python -m eval` does, a module a command: its options, one call, what is printed.

What a command needs is imported when it runs: `--help` needs no torch. From Python, call the `measure` of its room.
"""

from hardspike import printable


def say(text: object) -> None:
    """Print a line in which names out of files stand: they are to be seen, not obeyed."""
    print(printable(str(text)))
