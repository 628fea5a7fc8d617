"""Models opened for measuring."""

from pathlib import Path

from eval.options import Sample
from eval.subject import Subject, open_subjects
from export.recordings import Recordings


def subjects(*models: Path, split: str = "test", samples: int = 0, **recordings) -> list[Subject]:
    return open_subjects(models, Recordings(**recordings), Sample(split, samples))
