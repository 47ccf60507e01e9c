"""What every test shares: quiet, single-threaded libraries and the data beside the project.

The environment is set here, before any test imports torch or Ray: OpenMP reads it once. Tests
that need an empty cache ask for `isolated_cache`; the others use the user's own, so that the CPU
backbone is composed once for all of them.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

# Two test processes (workers of a group) on two cores: one thread each, and none that spins while
# it waits (one step took 14 times as long when threads outnumbered cores).
for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("GOMP_SPINCOUNT", "0")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")
os.environ.setdefault("RAY_DISABLE_IMPORT_WARNING", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# A hub name in a test is a mistake of the test; it fails at once instead of waiting for a network.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parents[1]
STARTS_RAY = ("RealSweep", "ray.init(")  # in the text of a test file


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log):
    """Workers of `make test` share out whole files; those that start Ray go to one of them.

    So module fixtures are made once, and there is one Ray at a time on the machine.
    """
    from xdist.scheduler import LoadFileScheduling

    class OneRayAtATime(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            text = (ROOT / file).read_text(encoding="utf-8")
            return "ray" if any(word in text for word in STARTS_RAY) else file

    return OneRayAtATime(config, log)


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real corpora beside the project; the test is skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the corpora beside the project (../shared/data) are not here")
    return folder


@pytest.fixture
def isolated_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty ERMGAP_CACHE for this test alone, seen by its child processes too."""
    cache = tmp_path / "cache"
    cache.mkdir()
    monkeypatch.setenv("ERMGAP_CACHE", str(cache))
    return cache


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory):
    """One real `--smoke-test` of 12 trials for all tests that only look at what it left."""
    from real_sweep import smoke_sweep

    return smoke_sweep(tmp_path_factory.mktemp("smoke"))


@pytest.fixture(scope="module")
def bucket():
    """A bucket of a real S3-compatible server on loopback."""
    import buckets

    if reason := buckets.missing():
        pytest.skip(reason)
    with buckets.Bucket() as made:
        yield made
