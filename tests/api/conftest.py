from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.api.service import Service, ended, service_with_models, submit, tiny_spec


@pytest.fixture(scope="package")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """One service for the whole folder."""
    with service_with_models(tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="package")
def finished(service: Service) -> str:
    """Id of a study that has run to its plan."""
    study = ended(service, submit(service, tiny_spec()))
    assert study["status"] == "done", study["error"]
    return str(study["id"])
