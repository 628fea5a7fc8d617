import signal
from pathlib import Path

import pytest
import torch

from hardspike import log
from trainer import native

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # in a background job; what is started here inherits it
    signal.signal(signal.SIGINT, signal.default_int_handler)


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


@pytest.fixture(autouse=True)
def _shown():
    """What is logged goes to the streams, as on a command line."""
    log.show()


def compiled(library: str) -> None:
    """Skip the test where no compiler is to be had; fail where there is one and it does not compile the library."""
    reason = native.obstacle(library, torch.ones(1))
    if reason and reason.startswith(("no C++ compiler", "HARDSPIKE_KERNEL")):
        pytest.skip(reason)
    assert not reason
