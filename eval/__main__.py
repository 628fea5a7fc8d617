"""Hard-spike accuracy, transfer gap and parity of checkpoints and exported graphs."""

import os
import sys

COMMANDS = {
    "accuracy": ("eval.commands.accuracy:accuracy",
                 "Accuracy with surrogate spikes, with hard spikes and of the exported graph, and the transfer gap."),
    "calibrate": ("eval.commands.calibrate:calibrate",
                  "Set thresholds or biases of a trained network for hard spikes: the cheap way."),
    "card": ("eval.commands.card:card",
             "Write a model's card: data, accuracy, gap, bits, energy, checks, licence; or a folder for a hub."),
    "conformance": ("eval.commands.conformance:conformance",
                    "Say which other readers of NIR load a graph, and which of them keep its spikes."),
    "energy": ("eval.commands.energy:energy",
               "Energy a sample: counts of `hardspike eval operations` times a price table."),
    "explain": ("eval.commands.explain:explain",
                "Say where two runs part first, spike for spike, and why: one model on two targets, or two models."),
    "features": ("eval.commands.features:features",
                 "t-SNE of what the readout gets, at the first step and the last, with silhouettes."),
    "golden": ("eval.commands.conformance:golden",
               "Write ten graphs with input and every layer's spikes, for tests of other readers."),
    "gradients": ("eval.commands.gradients:gradients",
                  "Gradients, membranes, spikes and weights of each layer of runs, drawn side by side."),
    "landscape": ("eval.commands.landscape:landscape",
                  "The loss around networks, over two directions, drawn side by side; the Hessian's top eigenvalues."),
    "operations": ("eval.commands.operations:operations",
                   "Count spikes, silent neurons, synaptic operations, neuron updates and messages between cores."),
    "parity": ("eval.commands.parity:parity",
               "Run one model on several targets and say who equals whom, spike for spike."),
    "pruning": ("eval.commands.pruning:pruning",
                "Take a network's smallest weights away, fine-tune it in a chip's integers, say what that saves."),
    "quantisation": ("eval.commands.quantisation:quantisation",
                     "Accuracy in several bit widths, with searched, max-abs and trained scales; memory, cores."),
    "report": ("eval.commands.report:report",
               "One self-contained page about a model: verdict, accuracy, robustness, operations, energy."),
    "robustness": ("eval.commands.robustness:robustness",
                   "Accuracy over the severity of corruptions and faults, with its mean and the area under the curve."),
    "sharpness": ("eval.commands.sharpness:sharpness",
                  "How sharp the loss is around a network, and SAST's bounds beside what is measured."),
    "study": ("eval.commands.study:study",
              "Train every variant of a study with every seed and compare them with the study's first variant."),
}

if __name__ == "__main__":
    # `python -m` looks for modules in the working folder first: what lies beside a model is not to be run
    if not sys.flags.safe_path and sys.path[0] != os.path.dirname(os.path.dirname(os.path.abspath(__file__))):
        del sys.path[0]
    try:
        from hardspike import run

        status = run("eval", COMMANDS)
    except KeyboardInterrupt:  # before `run` could take it over
        status = 130
    sys.exit(status)
