"""What the tests of the exchange with a PACS share."""

import pytest


@pytest.fixture
def files(bench):
    found = []
    for number, dataset in enumerate(bench.patient().slices("result", "20260301")):
        found.append(bench.folder / f"{number}.dcm")
        found[-1].write_bytes(bench.file_bytes(dataset))
    return found
