"""Watch a run: every operation of torch, every call of a leaf module, and which tensor came from where.

A `TorchFunctionMode` sees operations under the names that users write; every leaf module's forward is wrapped on the
instance. Inside a leaf nothing is noted. Tensors are known by identity: a change in place gives the tensor a new
value, and whatever shares its memory is not known any more.
"""

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.freeze.convert import require_known
from export.freeze.layers import Layer
from export.watch.known import Known, version_of
from export.watch.leaf import in_single_precision, is_fake_quantizer, is_leaf
from export.watch.values import NeuronCall, Value, key_of, label, leaves, require_plain, tensors, transform
from hardspike import HardspikeError

_READS = {"item", "bool", "int", "float", "index", "tolist", "numpy", "array", "equal", "allclose", "is_nonzero",
          "complex"}
_CASTS = {"int", "bool", "float", "complex", "index"}
"""Methods of tensors that are called like what Python asks for in underscores."""
_SIZED = {"nonzero", "argwhere", "masked_select", "unique", "unique_consecutive", "unique_dim"}
"""What they give is as large as the values say."""
_PRINTS = {"__repr__", "__format__", "__str__"}
_FRESH = {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "new_zeros",
          "new_ones", "new_full", "new_empty", "new_tensor"}
_EMPTY = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided"}
_RANDOM = {"bernoulli", "bernoulli_", "rand", "randn", "randint", "randperm", "normal", "normal_", "uniform_",
           "poisson", "multinomial", "rand_like", "randn_like", "randint_like", "exponential_", "rrelu", "random_"}
_IN_PLACE = {"__setitem__", "__iadd__", "__isub__", "__imul__", "__itruediv__", "__ifloordiv__", "__imod__", "__ipow__",
             "__iand__", "__ior__", "__ixor__", "__ilshift__", "__irshift__", "__set__"}
_NARROW = (torch.float32, torch.float16, torch.bfloat16)
_TYPES = {"torch.FloatTensor", "torch.HalfTensor", torch.FloatTensor, torch.HalfTensor}
STATES = ("spk", "syn", "syn_exc", "syn_inh", "mem")
_SETTINGS = ("beta", "alpha", "threshold", "graded_spikes_factor", "V", "R", "C", "time_step")


class Recorder(TorchFunctionMode):
    """One run.

    Args:
        modules: name -> module, as `prepared` gives them.
        dtype: float64 turns what the user's code makes float32 into float64 as well.

    Attributes:
        calls: name of a neuron -> its calls.
        counts: id of a leaf module -> how often it was called.
        reads: operations by which forward read values of what goes in into Python.
    """

    def __init__(self, modules: dict[str, nn.Module], dtype: torch.dtype = torch.float64):
        super().__init__()
        self.modules, self.dtype, self.depth = modules, dtype, 0
        self.names = {id(module): name for name, module in modules.items()}
        self.calls: dict[str, list[NeuronCall]] = {}
        self.made: dict[int, list[Value]] = {}
        self.moved: list[str] = []
        self.reads: list[str] = []
        self.known = Known()
        self._equal: dict[Any, tuple[Value, ...]] = {}
        self._functions: dict[Any, Any] = {}
        self._settings: dict[int, list] = {}
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}

    # ------------------------------------------------------------------------------------------- what is watched

    def wrap(self) -> None:
        """Put the recorder round every leaf module; `prepared` takes it off again."""
        for name, module in self.modules.items():
            if isinstance(module, snn.SpikingNeuron):
                module.__dict__["forward"] = self._neuron(name, module, module.forward)
            elif is_leaf(module):
                forward = module.forward
                if is_fake_quantizer(module):
                    forward = in_single_precision(forward, self.dtype)
                module.__dict__["forward"] = self._leaf(module, forward)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """Nothing is noted meanwhile."""
        self.depth += 1
        try:
            yield
        finally:
            self.depth -= 1

    def kept(self) -> list[Tensor]:
        """The tensors that the record keeps alive."""
        return self.known.kept

    def outside(self, tree: Any) -> None:
        """Tensors that the user hands over; those that the run gave out before are known already."""
        require_plain(tree)
        for _, tensor in tensors(tree):
            if self.known.lookup(tensor) is None:
                self.known.know(tensor, Value(None, shape=tuple(tensor.shape), outside=True, tensor=tensor,
                                         dtype=tensor.dtype))

    def value(self, tensor: Tensor) -> Value:
        """Where a tensor comes from; one that was never seen is a constant of the network.

        Raises:
            HardspikeError: it was changed in a way that could not be followed.
        """
        found = self.known.lookup(tensor)
        if isinstance(found, str):
            raise HardspikeError(f"forward, operation '{found}': changes a tensor in place through another one that "
                                 "shares its memory, and what comes of it cannot be followed; write into the tensor "
                                 "itself (x[:, 0] = ...), or make a new one")
        if found is None:
            found = Value(None, shape=tuple(tensor.shape), tensor=tensor, dtype=tensor.dtype)
            self.known.know(tensor, found)
        return found

    def __torch_function__(self, function: Callable, types: Any, args: tuple = (), kwargs: dict | None = None) -> Any:
        kwargs = kwargs or {}
        if self.dtype == torch.float64:
            function, args, kwargs = self._widened(function, args, kwargs)
        name = getattr(function, "__name__", "")
        if self.depth or name in _PRINTS:
            return self._wide_result(function(*args, **kwargs), (args, kwargs))
        known = transform((args, kwargs), Tensor, self.value)
        reads = name.strip("_") in _READS and name not in _CASTS
        if reads and any(v.neuron for v in leaves(known)):
            raise HardspikeError(f"forward, operation '{label(function)}': reads the value of a neuron's output into "
                                 "Python, so what happens next may depend on it; a graph has no branches on values: "
                                 "take it out of forward (print it outside)")
        _require_own_size(label(function), args, known)
        before = [(t, version_of(t)) for _, t in tensors((args, kwargs))]
        if _writes(function) or "out" in kwargs:
            self.known.keep_contents((args, kwargs))
        drawn = _drawn()
        result = self._wide_result(function(*args, **kwargs), (args, kwargs))
        if name in _EMPTY:
            result.zero_()  # whatever lies in memory is no constant
        random = _drawn() != drawn or any(isinstance(a, torch.Generator) for a in (*args, *kwargs.values()))
        if reads and any(v.outside for v in leaves(known)):
            self.reads.append(label(function))
        self._note(function, known, result, before, random)
        return result

    # ------------------------------------------------------------------------------------------------- wrappers

    def _leaf(self, module: nn.Module, forward: Callable) -> Callable:
        def watched(*args, **kwargs):
            if self.depth:
                return forward(*args, **kwargs)
            with self.aside():
                args, kwargs = transform((args, kwargs), Tensor, self._narrow_argument)
                known = transform((args, kwargs), Tensor, self.value)
                self._same_settings(module)
                before = [(t, version_of(t)) for _, t in tensors((args, kwargs))]
                if getattr(module, "inplace", False):
                    self.known.keep_contents(args)
                drawn = _drawn()
                result = forward(*args, **kwargs)
                self._note(module, known, result, before, _drawn() != drawn)
            return result

        return watched

    def _neuron(self, name: str, module: nn.Module, forward: Callable) -> Callable:
        if patched := [key for key in ("fire", "fire_inhibition", "forward", "mem_reset") if key in vars(module)]:
            raise HardspikeError(f"layer '{name}' ({type(module).__name__}): its {patched[0]} was replaced by another "
                                 "function, and what that does is not known here; leave it as snnTorch has it")
        parameters = inspect.signature(type(module).forward).parameters
        roles = [role for role in list(parameters)[2:] if role in STATES]
        fire, largest, seen = module.fire, module.fire_inhibition, []
        module.__dict__["fire"] = lambda membrane: (seen.append(membrane), fire(membrane))[1]
        module.__dict__["fire_inhibition"] = lambda size, membrane: (seen.append(membrane), largest(size, membrane))[1]

        def watched(*args, **kwargs):
            if self.depth:
                return forward(*args, **kwargs)
            with self.aside():
                return self._neuron_call(name, module, forward, roles, list(parameters)[1:], (args, kwargs), seen)

        return watched

    def _neuron_call(self, name: str, module: nn.Module, forward: Callable, roles: list[str], parameters: list[str],
                     given: tuple, seen: list) -> Any:
        args, kwargs = transform(given, Tensor, self._narrow_argument)
        require_known(Layer(name, module, ()))
        if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
            raise HardspikeError(f"layer '{name}' ({type(module).__name__}): runs under torch.autocast, which rounds "
                                 "to 16 bits; take it out of forward, and put it round the network's call in training")
        given = dict(zip(parameters, args, strict=False)) | kwargs
        first = given.get(parameters[0])
        if not isinstance(first, Tensor):
            raise HardspikeError(f"layer '{name}' ({type(module).__name__}): is called with {type(first).__name__} for "
                                 "its input; give it the tensor alone (of what a neuron returns, the spikes)")
        if first.ndim < 2:
            raise HardspikeError(f"layer '{name}' ({type(module).__name__}): its input {tuple(first.shape)} has no "
                                 "batch axis; give samples with one, (B, ...), also where B is 1; steps outside of "
                                 "forward as (T, B, ...) is needed")
        calls = self.calls.setdefault(name, [])
        call = NeuronCall(name, module, len(calls), self.value(first),
                          {role: self._state(module, role, given.get(role), first) for role in roles},
                          inherited=any(given.get(role) is None and isinstance(state := getattr(module, role, None),
                                        Tensor) and self.known.lookup(state) is None for role in roles))
        self._same_settings(module)
        seen.clear()
        result = forward(*args, **kwargs)
        calls.append(call)
        self._neuron_outputs(call, roles, result, seen)
        return result

    def _state(self, module: nn.Module, role: str, given: Any, input: Tensor) -> tuple[Value | None, bool]:
        state = given if given is not None else getattr(module, role, None)
        if not isinstance(state, Tensor) or state.shape != input.shape:
            if isinstance(state, Tensor) and state.numel() and state.numel() > 1 and given is not None and state.any():
                raise HardspikeError(f"layer '{self.names[id(module)]}' ({type(module).__name__}): is handed a state "
                                     f"of shape {tuple(state.shape)} for an input {tuple(input.shape)}; snnTorch "
                                     "drops it in silence: make the shapes equal")
            return None, True
        return self.value(state), not bool(state.any())

    def _neuron_outputs(self, call: NeuronCall, roles: list[str], result: Any, seen: list[Tensor]) -> None:
        spikes = result[0] if isinstance(result, tuple | list) else result
        if not isinstance(spikes, Tensor):
            raise HardspikeError(f"layer '{call.name}' ({type(call.module).__name__}): gives no tensor of spikes")
        call.spikes = (spikes != 0).to(torch.uint8)
        call.membrane = seen[-1].detach().clone() if seen else None
        self._give(call, "spk", spikes)
        for role in roles:
            state = getattr(call.module, role, None)
            if isinstance(state, Tensor) and state is not spikes:
                self._give(call, role, state)
        for number, (_, tensor) in enumerate(tensors(result)):
            if self.known.lookup(tensor) is None:
                self._give(call, f"output {number}", tensor)

    def _give(self, call: NeuronCall, role: str, tensor: Tensor) -> None:
        value = Value(call, (call.input,), index=role, shape=tuple(tensor.shape), neuron=True)
        call.outputs[role] = value
        self.known.know(tensor, value)

    def _same_settings(self, module: nn.Module) -> None:
        """Weights and thresholds are one thing for all steps.

        Raises:
            HardspikeError: one was changed since the module's last call.
        """
        now = [(v, version_of(v)) for v in _settings_of(module)]
        before = self._settings.setdefault(id(module), [(v, version, v.detach().clone()) for v, version in now])
        for (old, version, copy), (new, new_version) in zip(before, now, strict=False):
            if (old is not new or version != new_version) and not torch.equal(copy, new):
                way_out = "call network.apply(torch.ao.quantization.disable_observer)" if is_fake_quantizer(module) \
                    else "keep them fixed in evaluation"
                raise HardspikeError(f"layer '{self.names[id(module)]}' ({type(module).__name__}): its parameters "
                                     f"change from one call to the next; a graph has one set for all steps: {way_out}")

    def require_lasting(self) -> None:
        """What modules ran with is what they hold when the run ends, of which the graph is made.

        Raises:
            HardspikeError: one ran with other weights than it holds.
        """
        for name, module in self.modules.items():
            before, now = self._settings.get(id(module), []), _settings_of(module)
            if before and not all(map(torch.equal, (copy for _, _, copy in before), now)):
                raise HardspikeError(f"layer '{name}' ({type(module).__name__}): forward runs it with other parameters "
                                     "than it holds (torch.func.functional_call?), and a graph takes those that it "
                                     "holds; put them in (load_state_dict), and call it as it is")

    # --------------------------------------------------------------------------------------------------- values

    def _note(self, function: Any, known: tuple, result: Any, before: list, random: bool) -> None:
        """Give every tensor that a call made or changed its value; `random`: the call drew numbers."""
        args, kwargs = known
        name = label(function)
        function = self._functions.setdefault(function, function)  # a property's getter is a new object every time
        given = {id(t) for t, _ in before}
        unseen = _writes(function) and before and (before[0][1] < 0 or name == "data")  # by torch's count of versions
        changed = [before[0][0]] if unseen else [t for t, version in before if version_of(t) != version]
        results = [(path, t) for path, t in tensors(result) if id(t) not in given]
        if not results and not changed:
            return
        # What fills a new tensor of a given shape does not read it
        inputs = [] if name in _FRESH else list(leaves(known))
        neuron, outside = (any(getattr(v, key) for v in inputs) for key in ("neuron", "outside"))
        random = random or name in _RANDOM or _drops(function, args, kwargs) or any(v.random for v in inputs)

        def make(index: tuple, tensor: Tensor) -> Value:
            return Value(function, args, kwargs, index, tuple(tensor.shape), neuron, outside, random,
                         tensor if not neuron else None, tensor.dtype)

        if changed:
            for tensor in {id(t): t for t in changed}.values():
                value = make(("changed", next(n for n, (t, _) in enumerate(before) if t is tensor)), tensor)
                value.tensor = tensor.clone() if not neuron else None
                self.known.changed(tensor, value, name)
            for path, tensor in results:
                self.known.know(tensor, make(path, tensor))
            return
        key = None if random else (id(function), key_of(known), tuple(path for path, _ in results))
        values = self._equal.get(key)
        if values is None:
            values = tuple(make(path, tensor) for path, tensor in results)
            self.made.setdefault(id(function), []).extend(values) if isinstance(function, nn.Module) else None
            if key:
                self._equal[key] = values
        elif isinstance(function, nn.Module):
            self.made[id(function)].extend(values)
        for value, (_, tensor) in zip(values, results, strict=True):
            self.known.know(tensor, value)

    # --------------------------------------------------------------------------------------------------- float64

    def _widened(self, function: Callable, args: tuple, kwargs: dict) -> tuple[Callable, tuple, dict]:
        name = getattr(function, "__name__", "")
        if name in ("half", "bfloat16") or any(d in (torch.float16, torch.bfloat16) for d in (*args, *kwargs.values())
                                               if isinstance(d, torch.dtype)):
            raise HardspikeError(f"forward, operation '{name}': rounds to 16 bits, which the exact graph does not; "
                                 "take it out (what float32 rounds is judged in the check)")
        if name == "float":
            function = Tensor.double
        elif name == "type" and len(args) > 1 and args[1] in _TYPES:
            args = (args[0], torch.float64, *args[2:])
        args, kwargs = transform((args, kwargs), torch.dtype, lambda t: torch.float64 if t in _NARROW else t)
        return (function, *transform((args, kwargs), Tensor, self._narrow_argument))

    def _narrow_argument(self, tensor: Tensor) -> Tensor:
        """A float32 constant that the run brought along from elsewhere, in float64."""
        if self.dtype != torch.float64 or tensor.dtype not in _NARROW:
            return tensor
        if id(tensor) not in self._copies:
            with torch._C.DisableTorchFunction():
                self._copies[id(tensor)] = tensor, tensor.detach().to(torch.float64)
        return self._copies[id(tensor)][1]

    def _wide_result(self, result: Any, given: tuple) -> Any:
        if self.dtype != torch.float64 or not any(t.dtype in _NARROW for _, t in tensors(result)):
            return result
        arguments = {id(t) for _, t in tensors(given)}
        return transform(result, Tensor, lambda t: t.double() if t.dtype in _NARROW and id(t) not in arguments else t)


def _settings_of(module: nn.Module) -> list[Tensor]:
    """Weights, thresholds and the like of a layer."""
    if isinstance(module, snn.SpikingNeuron):
        values = [getattr(module, key, None) for key in _SETTINGS]
        values += getattr(module, "recurrent", nn.Identity()).parameters()
    else:
        values = [*module._parameters.values(), *module._buffers.values()]
    return [value for value in values if isinstance(value, Tensor)]


def _drops(function: Any, args: tuple, kwargs: dict) -> bool:
    """Whether it is a dropout that is left on."""
    name = label(function)
    if isinstance(function, nn.Module) or not name.endswith("dropout"):
        return False
    return bool(kwargs.get("training", args[2] if len(args) > 2 else True)) and kwargs.get("p", (*args, 0, 0.5)[1]) != 0


def _writes(function: Any) -> bool:
    """Whether it changes its first argument in place."""
    name = getattr(function, "__name__", "")
    return not isinstance(function, nn.Module) and (
        name in _IN_PLACE or (name.endswith("_") and not name.startswith("__")))


def _drawn() -> bytes:
    """Where torch's random numbers are: whoever draws moves it."""
    return torch.default_generator.get_state().numpy().tobytes()


def _require_own_size(name: str, args: tuple, known: tuple) -> None:
    """Refuse an operation whose result is as large as a neuron's output says.

    Raises:
        HardspikeError: it is one.
    """
    given, _ = known
    index = given[1] if name.strip("_") == "getitem" and len(given) > 1 else None
    masks = [v for v in leaves(index) if v.neuron] if index is not None else []
    sized = (name.strip("_") in _SIZED and any(v.neuron for v in leaves(known))) or (
        name == "where" and len(given) == 1 and any(v.neuron for v in leaves(known))) or (
        name == "repeat_interleave" and len(given) > 1 and any(v.neuron for v in leaves(given[1]))) or bool(masks)
    if sized:
        raise HardspikeError(f"forward, operation '{name}': chooses by a neuron's output, so how much there is depends "
                             "on it; a graph has fixed sizes: multiply by the spikes instead")
