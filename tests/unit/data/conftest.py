"""A small whole picture."""

import io

import pytest
from PIL import Image


@pytest.fixture
def picture() -> bytes:
    """A PNG of 8 x 6 pixels."""
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), "red").save(buffer, "PNG")
    return buffer.getvalue()
