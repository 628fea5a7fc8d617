"""How the options of data are written where a program was called, so that advice can be followed as it stands."""

from collections.abc import Iterator
from contextlib import contextmanager

from trainer.data.config import DataConfig

__all__ = ["option", "option_names", "proposal"]

_FRAMES = ("sensor", "window_ms")
"""What commands that run a model have not."""
_state: dict[str, str | None] = {"prefix": None}


@contextmanager
def option_names(prefix: str) -> Iterator[None]:
    """Within the block, the caller has every option of `DataConfig`, written `--` + `prefix` + key."""
    before, _state["prefix"] = _state["prefix"], prefix
    try:
        yield
    finally:
        _state["prefix"] = before


def option(key: str) -> str:
    """`--data.path` in `trainer fit`, `--path` in every other command; what the caller may not have, without dashes."""
    if _state["prefix"] is None and key in _FRAMES:
        return key
    return f"--{_state['prefix'] or ''}{key}"


def proposal(config: DataConfig, **values: object) -> str:
    """Options with their values, such as `--sensor 20,30 --window_ms 50`.

    What runs a model has `path`, but neither `sensor` nor `window_ms`: there it is the command that writes such
    recordings to a file.
    """
    if _state["prefix"] is not None:
        return " ".join(f"{option(key)} {value}" for key, value in values.items())
    own = {key: getattr(config, key) for key in ("steps", "bins", "encoding", "count_max", "size")
           if getattr(config, key) != getattr(DataConfig, key)}
    words = " ".join(f"--{key} {value}" for key, value in (values | own).items())
    return f"`hardspike data {config.name} --path {config.path} {words}`, whose file --input takes"
