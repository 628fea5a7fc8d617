"""A process's streams and signals: nothing that happens to them ends in a traceback."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from hardspike.called import as_called
from hardspike.errors import printable, shortened

__all__ = ["Interrupts", "say", "standard_streams", "stdout_trouble"]

@contextmanager
def standard_streams() -> Iterator[None]:
    """Standard output and error take every character, escaped where their encoding lacks it.

    Where one of the three streams is closed, its number is given to the null device: it would go to the next file that
    is opened, into which libraries would then print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    changed = []
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            changed.append((stream, stream.errors))
            stream.reconfigure(errors="backslashreplace")
    try:
        yield
    finally:
        for stream, errors in changed:
            with suppress(OSError, ValueError):  # closed, or full
                stream.reconfigure(errors=errors)


def say(line: str) -> None:
    """One printable line on standard error, which may be closed or full."""
    line = shortened(printable(as_called(line)))
    with suppress(OSError, ValueError, AttributeError):  # closed is None
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def stdout_trouble() -> OSError | None:
    """What hinders standard output, if something does; what was to be printed is then dropped, now and at exit."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, sys.stdout.fileno())
            os.close(null)
            sys.stdout.flush()
        return error
    except ValueError:  # closed by the command
        pass
    return None


class Interrupts:
    """SIGINT while a command runs: `happened`, and a KeyboardInterrupt as ever.

    An interrupt in the middle of a library's import may come out as another error, or be lost in a callback: hence the
    note that there was one. A process that is `ours` ends at once while `importing`, and after the command.
    """

    def __init__(self, prog: str, ours: bool):
        self.prog, self.ours, self.happened, self.importing = prog, ours, False, False
        # not where the caller handles it, or has it ignored (nohup), or runs us in a thread
        self.active = (threading.current_thread() is threading.main_thread()
                       and signal.getsignal(signal.SIGINT) is signal.default_int_handler)

    def __enter__(self) -> "Interrupts":
        if self.active:
            signal.signal(signal.SIGINT, self._interrupt)
            self.hook, sys.unraisablehook = sys.unraisablehook, self._unraisable
        return self

    def __exit__(self, *_) -> None:
        if self.active:
            sys.unraisablehook = self.hook
            # of a process of ours nothing is left to do but its end, whose traceback helps nobody
            signal.signal(signal.SIGINT, self._leave if self.ours else signal.default_int_handler)

    def _interrupt(self, number, frame) -> None:
        self.happened = True
        if self.ours and self.importing:
            self._leave()
        raise KeyboardInterrupt

    def _leave(self, *_) -> None:
        with suppress(OSError):
            os.write(2, f"{self.prog}: interrupted\n".encode())  # sys.stderr may be in the middle of a write
        os._exit(130)

    def _unraisable(self, found) -> None:
        if isinstance(found.exc_value, KeyboardInterrupt) and self.ours:  # lost in a callback: nobody else will stop
            self._leave()
        self.hook(found)

