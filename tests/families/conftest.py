"""Tests of the mathematics, written once: ``backend`` is each installed package in turn."""

import pytest

from backends import backends, get_backend


@pytest.fixture(params=backends())
def backend(request):
    return get_backend(request.param)
