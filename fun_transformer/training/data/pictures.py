"""From a picture file to what an image processor reads."""

import io
from typing import Any

from .sounds import BadSource


def read_picture(content: bytes) -> Any:
    """Return a picture in three colours (`PIL.Image.Image`), the right way up.

    Args:
        content: Of the file.

    Raises:
        BadSource: It cannot be read, or is taller than wide.
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image, ImageOps
    except ImportError as error:
        raise ImportError("Pictures are read by Pillow, which is not installed: pip install pillow") from error
    try:
        opened = Image.open(io.BytesIO(content))
        picture = ImageOps.exif_transpose(opened).convert("RGB")  # as pipelines do
    except Exception as error:  # each form has its own
        raise BadSource("not readable as a picture") from error
    if picture.height > picture.width:
        raise BadSource("taller than wide: give it a margin on its right")
    return picture
