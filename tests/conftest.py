from pathlib import Path

import pytest
import torch


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real recordings that the repository does not hold: N-MNIST, DVS Gesture, NIR traces."""
    folder = Path(__file__).parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no recordings at {folder}")
    return folder


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)
