"""Files that come with the package, taken by name: recipes, studies."""

from pathlib import Path

from hardspike.errors import UsageError, nearest

__all__ = ["shipped"]


def shipped(word: str | Path, folder: Path) -> Path:
    """The YAML file that `word` says: a path, or the name of a file in `folder`, without ending.

    What lies where the path points comes first; only a bare name is looked up.

    Raises:
        UsageError: a bare name that is no file and is not shipped; tells the nearest and all.
    """
    path = Path(word)
    if path.exists() or path.name != str(word) or path.suffix:
        return path
    known = {file.stem: file for file in sorted(folder.glob("*.yaml"))}
    if str(word) not in known:
        raise UsageError(f"{word}: no such file, and no name of one that is shipped{nearest(str(word), known)}; "
                             f"shipped: {', '.join(known)}")
    return known[str(word)]
