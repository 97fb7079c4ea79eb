import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from datasets.synthetic.generate import write_dataset
from tests.fetching.s3 import BUCKET, Place, Proxy, bucket_files, make_bucket, running_moto, running_proxy


@pytest.fixture(scope="session")
def moto_port() -> Iterator[int]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with running_moto() as port:
        yield port


@pytest.fixture(scope="session")
def sample(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The bucket's files: two scenes of two frames with boxes, as many with classes only, their bus, and more."""
    return bucket_files(write_dataset(tmp_path_factory.mktemp("sample"), 2, 2, (64, 40)))


@pytest.fixture
def proxy(moto_port: int) -> Iterator[Proxy]:
    with running_proxy(moto_port) as proxy:
        yield proxy


@pytest.fixture
def place(tmp_path: Path, proxy: Proxy, sample: dict[str, bytes]) -> Place:
    make_bucket(BUCKET, sample)
    return Place(tmp_path / "my data", proxy, sample)
