"""The shipped C and its self-test on other machines, emulated: a microcontroller without a system, ARM, RISC-V.

    apt-get install gcc-arm-none-eabi libnewlib-arm-none-eabi qemu-user qemu-system-arm gcc-riscv64-linux-gnu
"""

import shutil
import subprocess
from dataclasses import dataclass

import pytest
import torch

from targets import loihi2
from targets.graph import plan
from targets.loihi import compiled
from targets.loihi.c import file, selftest
from targets.loihi.layers import split
from tests import random_graphs

# where a Cortex-M4 of the board mps2-an386 looks for its stack and its first instruction, and what lies where
VECTORS = """extern void _start(void);
__attribute__((section(".vectors"), used)) static const void *vectors[] = {(void *)0x20400000, (void *)_start};
"""
MEMORY = """MEMORY { flash (rx) : ORIGIN = 0, LENGTH = 4M  ram (rwx) : ORIGIN = 0x20000000, LENGTH = 4M }
SECTIONS {
  .text : { KEEP(*(.vectors)) *(.text*) KEEP(*(.init)) KEEP(*(.fini)) *(.rodata*) *(.eh_frame*) } > flash
  .ARM.exidx : { *(.ARM.exidx*) } > flash
  .data : { *(.data*) KEEP(*(.init_array*)) KEEP(*(.fini_array*)) } > ram
  .bss : { __bss_start__ = .; *(.bss*) *(COMMON) __bss_end__ = .; } > ram
  end = .; __end__ = .;
}
"""


@dataclass(frozen=True)
class Machine:
    """A compiler with its options, and what runs the program that it makes."""

    compiler: tuple[str, ...]
    emulator: tuple[str, ...]


MACHINES = {
    "Cortex-M4": Machine(("arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-Os", "--specs=rdimon.specs", "vectors.c",
                          "-T", "memory.ld"),
                         ("qemu-system-arm", "-M", "mps2-an386", "-nographic", "-semihosting", "-kernel")),
    "Cortex-A7": Machine(("arm-none-eabi-gcc", "-mcpu=cortex-a7", "-marm", "-O2", "--specs=rdimon.specs"),
                         ("qemu-arm",)),
    "RISC-V": Machine(("riscv64-linux-gnu-gcc", "-static", "-O2"), ("qemu-riscv64",)),
}


@pytest.mark.parametrize("seed", [3, 9, 17])
@pytest.mark.parametrize("name", MACHINES)
def test_the_self_test_passes_there(name, seed, tmp_path):
    machine = MACHINES[name]
    for tool in (machine.compiler[0], machine.emulator[0]):
        if not shutil.which(tool):
            pytest.skip(f"no {tool}")
    graph, shape = random_graphs.graph(seed, "extreme" if seed == 17 else "any")
    largest = 9 if seed == 9 else 1
    x = torch.from_numpy(random_graphs.frames(seed, 16, 1, shape, largest))
    with compiled.without():
        wanted = loihi2.run(graph, x)
    written = file.write(split(plan(graph)), "net", largest)
    for made, text in (("net.c", written.text), ("net.h", written.header), ("vectors.c", VECTORS),
                       ("memory.ld", MEMORY),
                       ("net_test.c", selftest.shipped(written, x[:, 0], wanted.output.flatten(2)[:, 0]))):
        (tmp_path / made).write_text(text)
    built = subprocess.run([machine.compiler[0], "-std=c99", "net.c", "net_test.c", *machine.compiler[1:], "-o", "net"],
                           cwd=tmp_path, capture_output=True, text=True)
    if "rdimon.specs" in built.stderr:
        pytest.skip("no libnewlib-arm-none-eabi")
    assert built.returncode == 0, built.stderr
    found = subprocess.run([*machine.emulator, "net"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (found.returncode, found.stdout.strip()) == (0, "16 steps, 0 values differ"), found.stderr
    broken = (tmp_path / "net_test.c").read_text().replace("expected[t", "1 + expected[t")  # the test can fail
    (tmp_path / "net_test.c").write_text(broken)
    subprocess.run([machine.compiler[0], "-std=c99", "net.c", "net_test.c", *machine.compiler[1:], "-o", "net"],
                   cwd=tmp_path, check=True, capture_output=True)
    found = subprocess.run([*machine.emulator, "net"], cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert found.returncode and " 0 values" not in found.stdout
