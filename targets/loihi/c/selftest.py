"""Programs around a written C file: the self-test that is shipped with it, and the one that a check runs.

The check's program includes the C file itself, so that it sees the spikes and states of every layer, and speaks
through pipes: steps and samples and then bytes of input come in, bytes of every layer go out.
"""

import subprocess
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from hardspike import HardspikeError, scratch_folder
from targets import native
from targets.loihi.c.constants import rows
from targets.loihi.c.file import CFile, kept_slots

STRICT = ("-std=c99", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic")
SANITIZED = ("-std=c99", "-O1", "-g", "-fsanitize=undefined,address", "-fno-sanitize-recover=all")


@dataclass(frozen=True)
class Seen:
    """What a compiled file gave for spikes (T, B, *Input).

    Args:
        spikes: layer -> (T, B, C*H*W) uint8, in (C, H, W) order.
        states: layer -> v after each step, likewise, int32; for layers that keep one.
        output: (T, B, outputs) int64.
    """

    spikes: dict[str, Tensor]
    states: dict[str, Tensor]
    output: Tensor


def program_text(written: CFile) -> str:
    """The C of the check's program."""
    name, kind = written.name, written.out_type
    writes = []
    for key, p in written.program.populations.items():
        slots = kept_slots(written.program, written.outlet)[key]
        now = f"[(state.{key}_now[0] + {slots - 1}) % {slots}]" if slots > 1 else ""
        writes.append(f"            fwrite(state.{key}_spikes{now}, 1, {p.geometry.size}, stdout);")
        if f"int32_t {key}_v[" in written.text:
            writes.append(f"            fwrite(state.{key}_v, 4, {p.geometry.size}, stdout);")
    return "\n".join([
        f'#include "{name}.c"', "#include <stdio.h>", "", "int main(void)", "{",
        f"    static uint8_t in[{written.program.input.size}];", f"    static {kind} out[{name.upper()}_OUTPUTS];",
        "    int32_t size[2];", "    if (fread(size, 4, 2, stdin) != 2)", "        return 2;",
        "    for (int32_t sample = 0; sample < size[1]; sample++) {", f"        {name}_reset();",
        "        for (int32_t step = 0; step < size[0]; step++) {", "            if (fread(in, 1, sizeof in, stdin) != "
        "sizeof in)", "                return 2;", f"            {name}_step(in, out);", *writes,
        "            fwrite(out, sizeof out[0], sizeof out / sizeof out[0], stdout);", "        }", "    }",
        "    return 0;", "}", ""])


def run(written: CFile, spikes: Tensor, compiler: list[str], flags: tuple[str, ...] = STRICT,
        timeout: float = 600) -> Seen:
    """Compile the file and run it on `spikes` (T, B, *Input), whole numbers from 0 to 255.

    Raises:
        HardspikeError: it does not compile, or the program stops: with the compiler's or the sanitizer's first line.
    """
    steps, samples = spikes.shape[:2]
    given = spikes.transpose(0, 1).reshape(samples, steps, -1).to(torch.int16).to(torch.uint8).contiguous().numpy()
    with scratch_folder() as folder:
        (folder / f"{written.name}.c").write_text(written.text)
        (folder / f"{written.name}.h").write_text(written.header)
        (folder / "check.c").write_text(program_text(written))
        try:
            native.run_compiler([*compiler, *flags, "check.c", "-o", "check"], folder)
            result = folder / "out"
            with open(folder / "in", "wb") as file:
                file.write(np.array([steps, samples], np.int32).tobytes())
                file.write(given.tobytes())
            with open(folder / "in", "rb") as source, open(result, "wb") as sink:
                native.run_compiler([str(folder / "check")], folder, timeout, source, sink)
        except subprocess.CalledProcessError as error:
            what = "does not compile" if error.cmd[0] == compiler[0] else "stops"
            said = (error.stderr or "").strip().splitlines() or [f"exit status {error.returncode}"]
            first = next((line for line in said if "rror" in line), said[0])
            raise HardspikeError(f"{written.name}.c: {what} with {' '.join([*compiler, *flags])}: {first}") from error
        except subprocess.TimeoutExpired as error:
            raise HardspikeError(f"{written.name}.c: {' '.join(compiler)} or its program takes longer than "
                                 f"{error.timeout:g} s") from error
        return _read(written, np.fromfile(result, np.uint8), steps, samples)


def _read(written: CFile, content: np.ndarray, steps: int, samples: int) -> Seen:
    parts: list[tuple[str, str, int, type]] = []
    for key, p in written.program.populations.items():
        parts.append((key, "spikes", p.geometry.size, np.uint8))
        if f"int32_t {key}_v[" in written.text:
            parts.append((key, "states", p.geometry.size, np.int32))
    parts.append(("", "output", int(np.prod(written.outlet.shape)), np.int32 if written.outlet.sums else np.uint8))
    each = sum(size * np.dtype(kind).itemsize for _, _, size, kind in parts)
    content = content.reshape(samples, steps, each).swapaxes(0, 1)
    found: dict[str, dict[str, Tensor]] = {"spikes": {}, "states": {}}
    at, output = 0, torch.empty(0)
    for key, what, size, kind in parts:
        wide = size * np.dtype(kind).itemsize
        values: np.ndarray = np.ascontiguousarray(content[:, :, at:at + wide]).view(kind)
        at += wide
        if what == "output":
            output = torch.from_numpy(values.astype(np.int64))
            continue
        p = written.program.populations[key]
        found[what][p.label] = torch.from_numpy(values[:, :, np.argsort(p.geometry.order())])
    return Seen(found["spikes"], found["states"], output)


def sanitizers(compiler: list[str]) -> bool:
    """Whether a program with undefined-behaviour and address sanitizers can be made and run here."""
    with scratch_folder() as scratch:
        (scratch / "a.c").write_text("int main(void) { return 0; }\n")
        try:
            native.run_compiler([*compiler, *SANITIZED, "a.c", "-o", "a"], scratch)
            native.run_compiler([str(scratch / "a")], scratch)
        except (OSError, subprocess.SubprocessError):
            return False
    return True


def code_bytes(written: CFile, compiler: list[str]) -> int | None:
    """Bytes of machine code at -Os, without constants; None where the `size` tool does not say."""
    with scratch_folder() as folder:
        (folder / f"{written.name}.c").write_text(written.text)
        (folder / f"{written.name}.h").write_text(written.header)
        try:
            native.run_compiler([*compiler, "-std=c99", "-Os", "-c", f"{written.name}.c", "-o", "a.o"], folder)
            lines = native.run_compiler(["size", "-A", "a.o"], folder).splitlines()
            return sum(int(line.split()[1]) for line in lines if line.startswith(".text"))
        except (OSError, subprocess.SubprocessError, ValueError, IndexError):
            return None


def shipped(written: CFile, spikes: Tensor, output: Tensor) -> str:
    """The self-test: one recorded sample (T, *Input) as a list of events, and what every step has to give.

    Args:
        output: (T, outputs), whole numbers.
    """
    name, flat = written.name, spikes.reshape(len(spikes), -1).to(torch.int64).numpy()
    step, place = flat.nonzero()
    counts = np.bincount(step, minlength=len(flat))
    expected = output.reshape(len(output), -1).to(torch.int64).numpy()
    kind = written.out_type
    tables: list[tuple[str, str, np.ndarray]] = [("uint32_t", "counts", counts), ("uint32_t", "places", place),
              *([("uint8_t", "values", flat[step, place])] if written.program.graded else []),
              (kind, "expected", expected.reshape(-1))]
    lines = ["/*", f" * Self-test of {name}.c: one recorded sample, and what it gave in the simulator, step by step.",
             " *", f" *     cc -std=c99 {name}.c {name}_test.c -o {name}_test && ./{name}_test", " */",
             f'#include "{name}.h"', "#include <stdio.h>"]
    for ctype, table, values in tables:
        values = values if values.size else np.zeros(1, np.int64)
        lines += ["", f"static const {ctype} {table}[{values.size}] = {{", *rows(values), "};"]
    value = "values[event]" if written.program.graded else "1"
    return "\n".join([*lines, "", "int main(void)", "{", f"    static uint8_t in[{name.upper()}_INPUTS];",
                      f"    static {kind} out[{name.upper()}_OUTPUTS];", "    uint32_t event = 0, wrong = 0;",
                      f"    {name}_reset();", f"    for (uint32_t t = 0; t < {len(flat)}; t++) {{",
                      f"        for (uint32_t i = 0; i < {name.upper()}_INPUTS; i++)", "            in[i] = 0;",
                      "        for (uint32_t i = 0; i < counts[t]; i++, event++)",
                      f"            in[places[event]] = {value};", f"        {name}_step(in, out);",
                      f"        for (uint32_t i = 0; i < {name.upper()}_OUTPUTS; i++)",
                      f"            wrong += out[i] != expected[t * {name.upper()}_OUTPUTS + i];", "    }",
                      f'    printf("{len(flat)} steps, %lu values differ\\n", (unsigned long)wrong);',
                      "    return wrong != 0;", "}", ""])
