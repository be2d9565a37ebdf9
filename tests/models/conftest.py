"""Every test here has the paths that large models take."""

import pytest


@pytest.fixture(autouse=True)
def as_in_large_models(onednn_for_small_products: None) -> None:
    """See tests/conftest.py."""
