"""Decodes AEDAT 4.0 in a process of its own: on damaged files the decoder, which is Rust, panics, prints a backtrace,
and asks for gigabytes, without which it aborts. It is run as a file, and imports nothing of ours.

A line with the bytes that it may take, then a line of JSON for every file: its path. Each is answered by a line of
JSON, {"error": text} or {"bytes": n}, and n bytes, the events as `numpy.save` writes them.
"""

import io
import json
import os
import sys

import aedat
import numpy as np


def decoded(path: str) -> np.ndarray:
    """The events of the file's first event stream."""
    decoder = aedat.Decoder(path)
    streams = [number for number, stream in decoder.id_to_stream().items() if stream["type"] == "events"]
    if not streams:
        raise ValueError("it holds no stream of events")
    parts = [packet["events"] for packet in decoder if packet["stream_id"] == min(streams)]
    if not parts:
        raise ValueError("no events")
    return np.concatenate(parts)


def answer(path: str) -> tuple[dict, bytes]:
    """What is said of a file, and its events."""
    try:
        made = io.BytesIO()
        np.save(made, decoded(path), allow_pickle=False)
    except BaseException as error:  # a panic is no Exception
        return {"error": f"{type(error).__name__}: {error}"[:200]}, b""
    return {"bytes": made.tell()}, made.getvalue()


def limit(most: int) -> None:
    """Bytes that this process may take beside what it has."""
    try:
        import resource

        with open("/proc/self/statm") as file:
            taken = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + most,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    except (ImportError, OSError, ValueError):  # no Linux: what the decoder asks for, the system decides about
        pass


def main() -> None:
    """Until standard input ends, as it does with our parent."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    for number in range(3):  # the decoder prints
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    limit(int(requests.readline()))
    for line in requests:
        said, content = answer(json.loads(line))
        answers.write(json.dumps(said).encode() + b"\n" + content)
        answers.flush()


if __name__ == "__main__":
    try:
        main()
    except (KeyboardInterrupt, BrokenPipeError):
        sys.exit(1)
