"""What `hardspike export` does, as functions. What they need is imported when they run: `--help` needs no torch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from export.options import Output, Quantisation
from export.recordings import Recordings
from hardspike import UsageError

if TYPE_CHECKING:
    from export.check.parity import Parity


def nir(model: Path, output: Output = Output(), samples: int = 256,  # noqa: B008
        recordings: Recordings = Recordings(), lossy_reset: bool = False,  # noqa: B008
        result: str = "", conv_stages: bool = False) -> Parity | None:
    """Write a checkpoint, or a snnTorch network of your own, as a NIR graph and check it spike for spike.

    The file is read back, run by the target `reference` on real samples and compared, layer by layer, with the hard
    PyTorch network, both in float64; a single mismatch is an error and leaves no file. MODEL.nir.parity.json says
    what was compared.

    Args:
        model: a run's folder or a checkpoint (.pt) of `hardspike fit`; or FILE.py:NAME, a network of your own
            or a function that makes it: your file is run, and --input is what the network is called with
        output: what is written
        samples: recordings to check on, spread over the test part; 0 for all
        recordings: what to check on
        lossy_reset: write a subtracting reset as NIR's LIF, which resets to zero; prints how many spikes that changes
        result: of a network of your own, which of what forward returns is the Output: 1, spikes, or several in a row,
            0,1; without it the first that the last layer of neurons gives
        conv_stages: of an E-SpikeFormer, the stages before the first attention alone, which NIR and the chips hold:
            MODEL.conv.nir (trained in integers, MODEL.conv.TARGET-intBITS.nir). Their Output is what the next stage's
            first neurons give; the rest is the host's, a .behind.onnx of the same name. Of convolutions under a
            pyramid, these; the Output is what the last ones give

    Returns:
        what the check saw; None without a check.
    """
    from export.formats.nir import write_model, write_own
    from export.formats.source import source_of
    from export.model import Model
    if (source := source_of(model)) is not None:
        if conv_stages:
            raise UsageError("--conv_stages is for checkpoints; give the part of your network that you mean")
        return write_own(source, output, samples, recordings, lossy_reset, result)
    if result:
        raise UsageError("--result is for networks of your own (FILE.py:NAME); a checkpoint has one output")
    return write_model(Model.open(model), output, samples, recordings, lossy_reset, conv_stages)


def quantise(model: Path, output: Output = Output(), chosen: Quantisation = Quantisation(),  # noqa: B008
             samples: int = 256, recordings: Recordings = Recordings()) -> Parity | None:  # noqa: B008
    """Quantise a checkpoint or NIR graph for a chip: a NIR graph in integer units, and what that changed.

    BatchNorm, gains and pooling are folded, weights get `bits` bits, thresholds and biases the same integer units,
    leaks 4096ths. The file is read back and run in the chip's arithmetic: it must spike as the quantised graph does;
    against the float graph the spikes that differ are counted. It is called MODEL.TARGET-intBITS.nir.

    Args:
        model: a run's folder, a checkpoint (.pt) or a graph (.nir)
        output: what is written
        chosen: how it is quantised
        samples: recordings to check on, spread over the test part; 0 for all
        recordings: what to choose scales and to check on

    Returns:
        what the check saw, float graph against file; None without a check.
    """
    from export.formats.integers import write_integers
    from export.model import Model
    return write_integers(Model.open(model), output, chosen, samples, recordings)


def lava(model: Path, output: Output = Output(), chosen: Quantisation = Quantisation(),  # noqa: B008
         samples: int = 8, recordings: Recordings = Recordings()) -> Parity | None:  # noqa: B008
    """Write a checkpoint or NIR graph as a netx `.net` file for Lava, quantised, checked in Lava's simulator.

    A float graph is quantised first (`hardspike export quantise` says more); the integer graph is kept beside the
    file (MODEL.net.nir). The check runs the file in Intel's simulator, which `hardspike targets setup lava` installs,
    and the integer graph in `target`'s arithmetic; a single spike that differs is an error and leaves no file.

    Args:
        model: a run's folder, a checkpoint (.pt) or a graph (.nir), quantised or not
        output: what is written
        chosen: how it is quantised
        samples: recordings to check on, spread over the test part; 0 for all; the simulator takes about a second for
            each
        recordings: what to choose scales and to check on

    Returns:
        what the check saw; None without a check.
    """
    from export.formats.lava import write_lava
    from export.model import Model
    return write_lava(Model.open(model), output, chosen, samples, recordings)


def onnx(model: Path, output: Output = Output(), unroll: int | None = None, samples: int = 64,  # noqa: B008
         recordings: Recordings = Recordings()) -> Parity | None:  # noqa: B008
    """Write a network as an ONNX model and check it in onnxruntime, layer by layer.

    Without --unroll the model is one time step with its states as inputs and outputs, with it a whole sequence; the
    batch is free. A float graph computes in float32: every first spike that differs from the float64 reference has to
    lie within rounding of its threshold, and the output before it within rounding too. A quantised graph computes in
    its chip's integers: no spike may differ. Else there is an error and no file. MODEL.onnx.parity.json says what was
    compared.

    Args:
        model: a run's folder, a checkpoint (.pt) or a graph (.nir)
        output: what is written
        unroll: number of time steps of a sequence
        samples: recordings to check on, spread over the test part; 0 for all
        recordings: what to check on

    Returns:
        what the check saw; None without a check.
    """
    from export.formats.onnx import write_onnx
    from export.model import Model
    return write_onnx(Model.open(model), output, unroll, samples, recordings)


def c(model: Path, output: Output = Output(), chosen: Quantisation = Quantisation(),  # noqa: B008
      samples: int = 32, recordings: Recordings = Recordings()) -> Parity | None:  # noqa: B008
    """Write a checkpoint or NIR graph as C for any machine, compiled and checked against the chip's integers.

    A float graph is quantised first (`hardspike export quantise` says more). The file is C99 with integers alone, no
    heap and no library but <stdint.h>; beside it come NAME.h and NAME_test.c, a self-test with one recorded sample.
    The check compiles it with every warning an error, runs it on real samples, compares every layer's spikes with
    `target`, and runs it again under the compiler's sanitizers; a single difference is an error and leaves no file.

    Args:
        model: a run's folder, a checkpoint (.pt) or a graph (.nir), quantised or not
        output: what is written
        chosen: how it is quantised
        samples: recordings to check on, spread over the test part; 0 for all
        recordings: what to choose scales and to check on

    Returns:
        what the check saw; None without a check.
    """
    from export.formats.c import write_c
    from export.model import Model
    return write_c(Model.open(model), output, chosen, samples, recordings)
