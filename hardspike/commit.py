"""Which commit of the repository this program is."""

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECONDS = 10


def commit() -> str | None:
    """The commit that is checked out, with "and changes" where files differ from it; None where the program was
    installed, or git is not there."""
    git = shutil.which("git")
    if not git or not (ROOT / ".git").exists():
        return None
    try:
        head, changes = (
            subprocess.run([git, "--no-optional-locks", "-C", str(ROOT), *words], capture_output=True, text=True,
                           timeout=SECONDS, check=True).stdout.strip()
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"]))
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{head} and changes" if changes else head
