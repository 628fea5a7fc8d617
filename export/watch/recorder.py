"""Watch a run: every operation of torch, every call of a leaf module, and which tensor came from where.

A `TorchFunctionMode` sees operations under the names that users write; every leaf module's forward is wrapped on the
instance. Inside a leaf nothing is noted. Tensors are known by identity: a change in place gives the tensor a new
value, and whatever shares its memory is not known any more.
"""

import inspect
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import snntorch as snn
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from export.freeze.convert import require_known
from export.freeze.layers import Layer
from export.watch.operations import drawn, drops, require_own_size, writes
from export.watch.values import NeuronCall, Value, key_of, label, leaves, tensors, transform
from hardspike import HardspikeError

_READS = {"item", "bool", "int", "float", "index", "tolist", "numpy", "array", "equal", "allclose", "is_nonzero",
          "complex"}
_CASTS = {"int", "bool", "float", "complex", "index"}
"""Methods of tensors that are called like what Python asks for in underscores."""
_PRINTS = {"__repr__", "__format__", "__str__"}
_FRESH = {"zeros_like", "ones_like", "full_like", "empty_like", "rand_like", "randn_like", "randint_like", "new_zeros",
          "new_ones", "new_full", "new_empty", "new_tensor"}
_RANDOM = {"bernoulli", "bernoulli_", "rand", "randn", "randint", "randperm", "normal", "normal_", "uniform_",
           "poisson", "multinomial", "rand_like", "randn_like", "randint_like", "exponential_", "rrelu", "random_"}
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
        self._known: dict[int, tuple[weakref.ref, Value | str, int]] = {}
        self._sharing: dict[int, list[int]] = {}
        self._equal: dict[Any, tuple[Value, ...]] = {}
        self._functions: dict[Any, Any] = {}
        self._settings: dict[int, list] = {}
        self._copies: dict[int, tuple[Tensor, Tensor]] = {}
        self._kept: list[Tensor] = []

    # ------------------------------------------------------------------------------------------- what is watched

    def wrap(self) -> None:
        """Put the recorder round every leaf module; `prepared` takes it off again."""
        for name, module in self.modules.items():
            if isinstance(module, snn.SpikingNeuron):
                module.__dict__["forward"] = self._neuron(name, module, module.forward)
            elif is_leaf(module):
                module.__dict__["forward"] = self._leaf(module, module.forward)

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
        return self._kept

    def outside(self, tree: Any) -> None:
        """Tensors that the user hands over; those that the run gave out before are known already."""
        for _, tensor in tensors(tree):
            if tensor.layout != torch.strided:
                raise HardspikeError(f"what goes in is a tensor of layout {tensor.layout}; give it dense: x.to_dense()")
            if self._lookup(tensor) is None:
                self._know(tensor, Value(None, shape=tuple(tensor.shape), outside=True, tensor=tensor))

    def value(self, tensor: Tensor) -> Value:
        """Where a tensor comes from; one that was never seen is a constant of the network.

        Raises:
            HardspikeError: it was changed in a way that could not be followed.
        """
        found = self._lookup(tensor)
        if isinstance(found, str):
            raise HardspikeError(f"forward, operation '{found}': changes a tensor in place through another one that "
                                 "shares its memory, and what comes of it cannot be followed; write into the tensor "
                                 "itself (x[:, 0] = ...), or make a new one")
        if found is None:
            found = Value(None, shape=tuple(tensor.shape), tensor=tensor)
            self._know(tensor, found)
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
        require_own_size(label(function), args, known)
        before = [(t, _version(t)) for _, t in tensors((args, kwargs))]
        if writes(function) or "out" in kwargs:
            self._keep_contents((args, kwargs))
        before_it = drawn()
        result = self._wide_result(function(*args, **kwargs), (args, kwargs))
        random = drawn() != before_it or any(isinstance(a, torch.Generator) for a in (*args, *kwargs.values()))
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
                self._same_settings(module, [*module._parameters.values(), *module._buffers.values()])
                before = [(t, _version(t)) for _, t in tensors((args, kwargs))]
                if getattr(module, "inplace", False):
                    self._keep_contents(args)
                before_it = drawn()
                result = forward(*args, **kwargs)
                self._note(module, known, result, before, drawn() != before_it)
            return result

        return watched

    def _neuron(self, name: str, module: nn.Module, forward: Callable) -> Callable:
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
                                        Tensor) and self._lookup(state) is None for role in roles))
        self._same_settings(module, [getattr(module, key, None) for key in _SETTINGS] + [
            *getattr(module, "recurrent", nn.Identity()).parameters()])
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
            if self._lookup(tensor) is None:
                self._give(call, f"output {number}", tensor)

    def _give(self, call: NeuronCall, role: str, tensor: Tensor) -> None:
        value = Value(call, (call.input,), index=role, shape=tuple(tensor.shape), neuron=True)
        call.outputs[role] = value
        self._know(tensor, value)

    def _same_settings(self, module: nn.Module, values: list) -> None:
        """Weights and thresholds are one thing for all steps.

        Raises:
            HardspikeError: one was changed since the module's last call.
        """
        now = [(v, _version(v)) for v in values if isinstance(v, Tensor)]
        before = self._settings.setdefault(id(module), [(v, version, v.detach().clone()) for v, version in now])
        for (old, version, copy), (new, new_version) in zip(before, now, strict=False):
            if (old is not new or version != new_version) and not torch.equal(copy, new):
                raise HardspikeError(f"layer '{self.names[id(module)]}' ({type(module).__name__}): its parameters "
                                     "change from one call to the next; a graph has one set for all steps: keep them "
                                     "fixed in evaluation")

    # --------------------------------------------------------------------------------------------------- values

    def _note(self, function: Any, known: tuple, result: Any, before: list, random: bool) -> None:
        """Give every tensor that a call made or changed its value; `random`: the call drew numbers."""
        args, kwargs = known
        name = label(function)
        function = self._functions.setdefault(function, function)  # a property's getter is a new object every time
        given = {id(t) for t, _ in before}
        unseen = writes(function) and before and (before[0][1] < 0 or name == "data")  # by torch's count of versions
        changed = [before[0][0]] if unseen else [t for t, version in before if _version(t) != version]
        results = [(path, t) for path, t in tensors(result) if id(t) not in given]
        if not results and not changed:
            return
        # What fills a new tensor of a given shape does not read it
        inputs = [] if name in _FRESH else list(leaves(known))
        neuron, outside = (any(getattr(v, key) for v in inputs) for key in ("neuron", "outside"))
        random = random or name in _RANDOM or drops(function, args, kwargs) or any(v.random for v in inputs)

        def make(index: tuple, tensor: Tensor) -> Value:
            return Value(function, args, kwargs, index, tuple(tensor.shape), neuron, outside, random,
                         tensor if not neuron else None)

        if changed:
            for tensor in {id(t): t for t in changed}.values():
                value = make(("changed", next(n for n, (t, _) in enumerate(before) if t is tensor)), tensor)
                value.tensor = tensor.clone() if not neuron else None
                self._forget_sharing(tensor, name)
                self._know(tensor, value)
            for path, tensor in results:
                self._know(tensor, make(path, tensor))
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
            self._know(tensor, value)

    def _keep_contents(self, tree: Any) -> None:
        """Before a change in place: what the values that are known by these very tensors are worth."""
        for _, tensor in tensors(tree):
            value = self._lookup(tensor)
            if isinstance(value, Value) and value.tensor is tensor:
                value.tensor = tensor.clone()

    def _know(self, tensor: Tensor, value: Value | str) -> None:
        if isinstance(value, Value) and value.tensor is not None:
            self._kept.append(tensor)
        self._known[id(tensor)] = weakref.ref(tensor), value, _version(tensor)
        storage = _storage(tensor)
        if storage:
            self._sharing.setdefault(storage, []).append(id(tensor))

    def _lookup(self, tensor: Tensor) -> Value | str | None:
        entry = self._known.get(id(tensor))
        if entry is None or entry[0]() is not tensor:
            return None
        return entry[1] if isinstance(entry[1], str) or entry[2] == _version(tensor) else "an operation out of sight"

    def _forget_sharing(self, tensor: Tensor, name: str) -> None:
        for other in self._sharing.get(_storage(tensor), []):
            alive = self._known.get(other)
            if alive and (shared := alive[0]()) is not None and shared is not tensor \
                    and _storage(shared) == _storage(tensor):
                self._known[other] = alive[0], name, alive[2]

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


def is_leaf(module: nn.Module) -> bool:
    """Whether a module is taken whole: one of torch's or snnTorch's that has no other inside."""
    kind = type(module).__module__.split(".")
    return (kind[0] in ("torch", "snntorch") and not list(module.children()) and not isinstance(
        module, nn.Sequential | nn.ModuleList | nn.ModuleDict | nn.ParameterList | nn.ParameterDict)) \
        or isinstance(module, nn.RNNBase | nn.MultiheadAttention | nn.TransformerEncoderLayer) or (
        kind[0] == "snntorch" and not isinstance(module, snn.SpikingNeuron))


def _version(tensor: Tensor) -> int:
    return -1 if tensor.is_inference() else tensor._version


def _storage(tensor: Tensor) -> int:
    try:
        return tensor.untyped_storage().data_ptr()
    except (RuntimeError, NotImplementedError):
        return 0
