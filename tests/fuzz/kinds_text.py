"""Kinds of file that are text: configurations, studies, price tables."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.fuzz import mutate

Make = Callable[[random.Random, Path], Path]

ODD = (
    "&a [*a]",
    "!!python/object/apply:os.system ['id']",
    f"!!python/name:{mutate.CANARY}.X ",
    "!!binary 'AAAA'",
    "2001-01-01",
    "0x1F",
    "1_000",
    "1e400",
    ".nan",
    ".inf",
    "- - - -",
    "{{",
    "? x",
    "<<: *x",
    "|\n  text",
    "'\\x00'",
    '"\\0"',
    '"\\uD800"',
    "~",
    "yes",
    "12:30:45",
    "9" * 5000,
    "\t",
    "%YAML 9.9",
    "---\n---",
    "[" * 3000,
    "{" * 50,
    "*unknown",
    "@x",
    "`x",
    "{a: &b {c: *b}}",
    "[&x [1], " + "*x, " * 3000 + "]",
)
"""Values that YAML, or what reads it, may trip over."""


def text(valid: Callable[[], str], suffix: str) -> Make:
    """YAML: bytes, odd syntax, or the values."""

    def make(r: random.Random, folder: Path) -> Path:
        import yaml

        path, raw = folder / f"in{suffix}", valid()
        match r.randrange(4):
            case 0:
                path.write_bytes(mutate.mutated(r, raw.encode()))
            case 1:
                lines = raw.splitlines()
                place = r.randrange(len(lines))
                lines[place] = f"{lines[place].split(':')[0]}: {r.choice(ODD)}"
                path.write_text("\n".join(lines), "utf8", "surrogatepass")
            case _:
                tree = mutate.mutated_tree(
                    r, yaml.safe_load(raw), lambda: mutate.value(r, str(folder.parent / "canaries"))
                )
                try:
                    made = yaml.safe_dump(tree, sort_keys=False, allow_unicode=True)
                except (yaml.YAMLError, ValueError):  # more digits than Python writes
                    made = repr(type(tree))
                path.write_text(made, "utf8", "surrogatepass")
        return path

    return make


def _config() -> str:
    import yaml

    from trainer.config import FitConfig, to_dict

    return yaml.safe_dump(to_dict(FitConfig()), sort_keys=False)


def use_config(path: Path) -> None:
    """A run's configuration, as from the command line."""
    from hardspike import read_yaml
    from trainer.config import from_dict

    from_dict(read_yaml(path), str(path))


def use_study(path: Path) -> None:
    """The variants of a study."""
    from eval.study.plan import read

    read(path)


def use_prices(path: Path) -> None:
    """A table of prices."""
    from eval.energy.price_tables import load_table

    load_table(str(path))


STUDY = """base:
  epochs: 2
  data: {steps: 4}
variants:
  a: {method: hard}
  b:
    network: {beta: 0.8}
    lr: 1e-3
"""


KINDS: dict[str, tuple[Make, Callable[[Path], Any]]] = {
    "config": (text(_config, ".yaml"), use_config),
    "study": (text(lambda: STUDY, ".yaml"), use_study),
    "prices": (text(lambda: (Path(__file__).parents[2] / "eval/energy/prices/loihi2.yaml").read_text(), ".yaml"),
               use_prices),
}
