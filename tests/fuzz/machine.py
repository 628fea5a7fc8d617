"""Runs inputs in forked children, with limits of memory and time, and says what came of each."""

import ctypes
import importlib
import json
import os
import random
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from hardspike import HardspikeError
from tests.fuzz.kinds import KINDS
from tests.fuzz.mutate import CANARY

ROOT = Path(__file__).parents[2]
MEMORY = 4 << 30
"""Bytes that a child may take more than its parent."""
SLOWEST = 20
"""Seconds of the processor, or of waiting for nothing; on a busy machine an input may take longer by the clock."""
WARM = ("h5py", "matplotlib.font_manager", "onnxruntime", "sklearn.datasets", "eval.gradients", "eval.study.plan",
        "eval.subject", "export.passes.lower", "targets.table", "trainer.data.loading", "trainer.fit")
"""Imported before the first child is forked, so that children begin with them; they start no threads by that."""
LONGEST = 500
"""Characters of a refusal."""
FAULTS = ("traceback", "hang", "signal", "opened", "bad line")
"""Outcomes that must not be; the others: ok, refused, memory (one line as well), skipped (no input was made)."""
_ENDS = ("os.system", "os.exec", "os.posix_spawn", "os.spawn", "subprocess.Popen", "socket.connect", "os.startfile")
_OURS = (str(ROOT / "trainer/data/readers/aedat4_worker.py"), str(ROOT))
"""Programs that reading a file may start, and git in our own repository, which the report asks for its commit."""
_IN_OPEN = 0x20


@dataclass(frozen=True)
class Outcome:
    """What came of input `number`: its class, where (faults are merged by it), what was said."""

    number: int
    result: str
    place: str = ""
    said: str = ""
    seconds: float = 0.0


class Watch:
    """What is opened, imported or started while an input is used, by Python (audit hooks) or by C code (inotify)."""

    def __init__(self, folder: Path):
        self.canaries = folder / "canaries"
        self.found: list[str] = []
        self.on = False
        self.allowed = tuple(
            map(
                os.path.realpath,
                (
                    folder / "work",
                    folder / "cache",
                    ROOT,
                    sys.prefix,
                    sys.base_prefix,
                    "/dev",
                    "/proc",
                    "/sys",
                    "/usr/lib",
                    "/usr/share/zoneinfo",
                ),
            )
        )
        sys.path.append(str(self.canaries))
        sys.addaudithook(self.audit)
        self.notify = _inotify(self.canaries)

    def audit(self, event: str, arguments: tuple) -> None:
        """Called for everything that Python does."""
        if not self.on:
            return
        if event == "subprocess.Popen" and any(str(word) in _OURS for word in arguments[1][1:]):
            return
        if event in _ENDS or (event == "import" and CANARY in str(arguments[0])):
            self.found.append(f"{event} {str(arguments[0])[:100]}")
        elif event == "open" and isinstance(arguments[0], str | bytes):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if not path.startswith(self.allowed):
                self.found.append(f"open {path[:100]}")

    def opened(self) -> str:
        """What has been seen since the last call."""
        found, self.found = self.found, []
        sys.modules.pop(CANARY, None)
        try:
            if self.notify is not None and CANARY.encode() in os.read(
                self.notify, 4096
            ):  # not the folder, which is listed
                found.append(f"{CANARY} opened by C code")
        except BlockingIOError:
            pass
        return "; ".join(dict.fromkeys(found))


def _inotify(folder: Path) -> int | None:
    """Descriptor that is readable when a file of `folder` is opened; None where there is no inotify."""
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        descriptor = libc.inotify_init1(os.O_NONBLOCK)
        libc.inotify_add_watch(descriptor, os.fsencode(folder), _IN_OPEN)
    except (OSError, AttributeError):
        return None
    return descriptor if descriptor >= 0 else None


def prepare(folder: Path) -> None:
    """The canaries, and a place to work."""
    for name in ("work", "cache", "canaries"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for suffix in (".py", ".yaml", ".npz", ".h5", ""):
        (folder / "canaries" / f"{CANARY}{suffix}").write_text("")


def judged(use: Callable[[Path], None], path: Path, watch: Watch | None) -> tuple[str, str, str]:
    """Class, place and words of what `use` makes of `path`."""
    found = "ok", "", ""
    if watch:
        watch.opened()
        watch.on = True
    try:
        use(path)
    except HardspikeError as error:
        text = str(error).replace(str(path.parent), "FOLDER")
        good = text.isprintable() and len(text) < LONGEST and "Traceback" not in text
        found = ("refused", "", text) if good else ("bad line", _place(error), text)
    except MemoryError as error:
        found = "memory", _place(error), ""
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        text = " ".join(str(error).split())
        kind = "memory" if "allocate memory" in text or "not enough memory" in text else "traceback"
        found = kind, f"{type(error).__name__} {_place(error)}", text
    if watch:
        watch.on = False
        if opened := watch.opened():
            found = "opened", opened, found[2]
    return found


def _place(error: BaseException) -> str:
    """The last lines of ours, and of whoever raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [
        f
        for f in frames
        if f.filename.startswith(str(ROOT)) and "/tests/" not in f.filename and ".venv" not in f.filename
    ]
    last = (ours or frames)[-1]
    deepest = "" if last is frames[-1] else f" <- {Path(frames[-1].filename).name}"
    return f"{os.path.relpath(last.filename, ROOT)}:{last.name}{deepest}"


def run(name: str, seed: int, numbers: Iterator[int], folder: Path, memory: int = MEMORY) -> Iterator[Outcome]:
    """The outcome of every input of a kind, in order."""
    prepare(folder)
    for module in WARM:
        importlib.import_module(module)
    KINDS[name].make(random.Random(0), fresh(folder / "work"))  # what inputs are made from, made once
    waiting = list(numbers)
    while waiting:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(read)
            _work(name, seed, waiting, folder, write, memory)
        os.close(write)
        try:
            for outcome in _watched(child, read, waiting):
                waiting = waiting[waiting.index(outcome.number) + 1 :]
                yield outcome
        finally:
            os.close(read)


def fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _work(name: str, seed: int, numbers: list[int], folder: Path, write: int, memory: int) -> None:
    """The child: one line of JSON before and after every input."""
    try:
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (taken + memory,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        null = os.open(os.devnull, os.O_RDWR)
        os.dup2(null, 1)
        os.dup2(null, 2)
        sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", closefd=False)  # noqa: SIM115
        watch = Watch(folder)

        def say(**values) -> None:
            os.write(write, json.dumps(values).encode() + b"\n")

        for number in numbers:
            try:
                path = KINDS[name].make(random.Random(f"{name}/{seed}/{number}"), fresh(folder / "work"))
            except Exception as error:
                say(
                    number=number,
                    result="skipped",
                    place=f"{type(error).__name__} {_place(error)}",
                    said=str(error)[:200],
                )
                continue
            say(begin=number)
            began = time.monotonic()
            result, place, said = judged(KINDS[name].use, path, watch)
            say(number=number, result=result, place=place, said=said[:600], seconds=time.monotonic() - began)
    finally:
        os._exit(0)


def _watched(child: int, read: int, waiting: list[int]) -> Iterator[Outcome]:
    """What a child says, until it ends or hangs."""
    text, using, done, began = b"", None, 0, (time.monotonic(), _processor(child))
    try:
        while True:
            ready, _, _ = select.select([read], [], [], SLOWEST / 4)
            if not ready:
                if not _hangs(child, *began):
                    continue
                os.kill(child, signal.SIGKILL)
                if using is None:
                    yield Outcome(waiting[done], "skipped", "took too long to make")
                else:
                    yield Outcome(using, "hang")
                return
            part = os.read(read, 1 << 16)
            if not part:
                break
            began = time.monotonic(), _processor(child)
            *lines, text = (text + part).split(b"\n")
            for line in lines:
                said = json.loads(line)
                if "begin" in said:
                    using = said["begin"]
                else:
                    using, done = None, done + 1
                    yield Outcome(**said)
    finally:
        _, status = os.waitpid(child, 0)
    if using is not None:
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
        yield Outcome(using, "signal", f"signal {number}" if number else f"exit {os.waitstatus_to_exitcode(status)}")


def _processor(child: int) -> float:
    """Seconds that a child, with all its threads, has had the processor for."""
    words = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()
    return (int(words[11]) + int(words[12])) / os.sysconf("SC_CLK_TCK")


def _hangs(child: int, began: float, used: float) -> bool:
    """Whether a child has used the processor for too long, or waits for something: not merely for its turn."""
    took, used = time.monotonic() - began, _processor(child) - used
    waits = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] != "R"
    return used > SLOWEST or (took > SLOWEST and used < 0.01 * took and waits) or took > 60 * SLOWEST


def once(name: str, path: Path, folder: Path) -> Outcome:
    """The outcome of one file, in a child of its own."""
    prepare(folder)
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(read)
        try:
            taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY,) * 2)
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            os.write(write, json.dumps({"begin": 0}).encode() + b"\n")
            result, place, said = judged(KINDS[name].use, path, Watch(folder))
            os.write(
                write, json.dumps({"number": 0, "result": result, "place": place, "said": said[:600]}).encode() + b"\n"
            )
        finally:
            os._exit(0)
    os.close(write)
    try:
        return next(iter(list(_watched(child, read, [0]))), Outcome(0, "signal"))
    finally:
        os.close(read)
