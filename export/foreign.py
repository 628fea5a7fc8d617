"""What is given in place of a model, a network's code or other programs' weights, and what to give instead.

Code is parsed and never run; of a file of weights the first bytes of its pickle are looked at as bytes.
"""

import ast
import zipfile
from pathlib import Path

from hardspike import HardspikeError, UsageError, few, read_bytes

OWN = "hardspike export nir {file}:{name} --input spikes.npz"
"""How a network of the user's own is written."""
WEIGHTS = (".ckpt", ".pth", ".bin", ".safetensors", ".pkl", ".h5")
"""Suffixes under which other programs keep weights."""
_KEYS = (b"config", b"network", b"slope", b"diagnostics")
"""Keys of a checkpoint of `hardspike fit`."""
LARGEST_SOURCE = 1 << 20
"""Bytes of a Python file that is parsed."""
_READ = 1 << 22


def refuse(path: Path, kinds: str) -> HardspikeError:
    """Why a path that is neither a checkpoint nor a graph is no model, and what to give.

    Args:
        kinds: what models are, in words.
    """
    source, colon, name = str(path).partition(".py:")
    if colon and Path(f"{source}.py").is_file():
        return UsageError(f"{path}: is code; a network of your own is written first, and the graph is the model: "
                          f"`{OWN.format(file=f'{source}.py', name=name)}`")
    if not path.exists():
        return HardspikeError(f"{path}: no such file or folder")
    if path.suffix == ".py":
        return UsageError(code(path))
    if path.suffix in WEIGHTS:
        return UsageError(f"{path}: is no model of hardspike; {weights_of_your_own()}")
    return UsageError(f"{path}: is no model; give {kinds}")


def weights_of_your_own() -> str:
    """What to do with weights that another program trained."""
    return (f"for a network of your own: `{OWN.format(file='FILE.py', name='NAME')}`, where NAME makes it and loads "
            "these weights")


def of_fit(path: Path) -> bool:
    """Whether a .pt file looks like a checkpoint of `hardspike fit`, damaged or not."""
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.namelist():
                if member.endswith("data.pkl"):
                    with archive.open(member) as file:
                        content = file.read(_READ)
                    return all(key in content for key in _KEYS)
    except (OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError, ValueError, EOFError):
        return False
    return False


def code(path: Path) -> str:
    """What is missing of a Python file: the name of the network in it, with those that could be meant."""
    try:
        names = _makers(path)
    except (SyntaxError, ValueError, RecursionError, MemoryError):  # no Python, or nested beyond what Python takes
        names = []
    if not names:
        return (f"{path}: is code, and defines neither a torch module nor a function without arguments; write one that "
                f"makes the network: `{OWN.format(file=path, name='NAME')}`")
    could = f"; that could be {few(names)}" if len(names) > 1 else ""
    return f"{path}: is code: say which network is meant, `{OWN.format(file=path, name=names[0])}`{could}"


def _makers(path: Path) -> list[str]:
    """Names at the top of a file that make or are a network: modules, then values, then functions without arguments."""
    tree = ast.parse(read_bytes(path, LARGEST_SOURCE, "Python file"))
    classes, without, values, functions = set(), [], [], []
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(_is_module(ast.unparse(base), classes) for base in node.bases):
            classes.add(node.name)
            if _needs_nothing(node.body):
                without.append(node.name)
        elif isinstance(node, ast.FunctionDef) and _free(node) and not node.name.startswith("_") \
                and any(isinstance(inner, ast.Return) and inner.value for inner in ast.walk(node)):
            functions.append(node.name)
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Call) \
                and _is_module(ast.unparse(node.value.func), classes):
            values += [target.id for target in node.targets if isinstance(target, ast.Name)]
    return list(dict.fromkeys([*without, *values, *functions]))


def _is_module(name: str, classes: set[str]) -> bool:
    return name in classes or name.rpartition(".")[2].endswith(("Module", "Sequential"))


def _needs_nothing(body: list[ast.stmt]) -> bool:
    """Whether a class is made without arguments."""
    return all(_free(node, 1) for node in body if isinstance(node, ast.FunctionDef) and node.name == "__init__")


def _free(node: ast.FunctionDef, own: int = 0) -> bool:
    """Whether a function is called without arguments, beside the first `own`."""
    given = node.args
    needed = len(given.posonlyargs) + len(given.args) - len(given.defaults) - own
    return needed <= 0 and all(default is not None for default in given.kw_defaults)
