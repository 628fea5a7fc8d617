"""A process's streams and signals: nothing that happens to them ends in a traceback."""

import errno
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, TextIO

from hardspike.errors import printable, shortened

__all__ = ["Interrupts", "answer", "answer_alone", "say", "standard_streams", "stdout_trouble"]

_ANSWERS: list[TextIO | None] = []
"""Standard output as it was, while what is printed goes to standard error."""


class _Output:
    """A stream that may break: what cannot be written is dropped, and `trouble` says why.

    What a command makes is its files, which may have taken hours: it goes on to its end, and its status says that
    output was lost.
    """

    def __init__(self, stream: TextIO | None):
        self.stream = stream or open(os.devnull, "w")  # noqa: SIM115  # as long as the process
        self.closed_before = stream is None
        self.trouble: OSError | None = None

    def write(self, text: str) -> int:
        if self.closed_before:
            self.trouble = self.trouble or OSError(errno.EBADF, os.strerror(errno.EBADF))
        try:
            self.stream.write(text)
        except OSError as error:
            self._drop(error)
        except ValueError:  # closed by the command
            pass
        return len(text)

    def flush(self) -> None:
        try:
            self.stream.flush()
        except OSError as error:
            self._drop(error)
        except ValueError:  # closed by the command
            pass

    def _drop(self, error: OSError) -> None:
        """What is still to come goes to the null device, and so does what was kept to be written."""
        self.trouble = self.trouble or error
        with suppress(OSError, ValueError):
            null = os.open(os.devnull, os.O_WRONLY)
            os.dup2(null, self.stream.fileno())
            os.close(null)
            self.stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def standard_streams() -> Iterator[None]:
    """Standard output and error take every character, escaped where their encoding lacks it. What breaks is dropped;
    of standard output `stdout_trouble` says so.

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
        with redirect_stdout(_Output(sys.stdout)), redirect_stderr(_Output(sys.stderr)):
            yield
    finally:
        for stream, errors in changed:
            with suppress(OSError, ValueError):  # closed, or full
                stream.reconfigure(errors=errors)


def say(line: str) -> None:
    """One printable line on standard error, which may be closed or full."""
    line = shortened(printable(line))
    with suppress(OSError, ValueError, AttributeError):  # closed is None
        sys.stderr.write(line + "\n")
        sys.stderr.flush()


def stdout_trouble() -> OSError | None:
    """Why something that was printed has not arrived; None where all has. Flushes what is to be printed."""
    output = _ANSWERS[0] if _ANSWERS else sys.stdout
    if not isinstance(output, _Output):
        return None
    output.flush()
    return output.trouble


@contextmanager
def answer_alone() -> Iterator[None]:
    """Keep standard output for one `answer`; what is printed goes to standard error."""
    _ANSWERS.append(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        _ANSWERS.pop()


def answer(text: str) -> None:
    """Write on standard output, also within `answer_alone`."""
    output = _ANSWERS[-1] if _ANSWERS else sys.stdout
    if output is not None:
        output.write(text)


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

