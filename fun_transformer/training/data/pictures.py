"""From a picture file to what an image processor reads."""

import io
from typing import Any

from .sounds import BadSource


def read_picture(content: bytes) -> Any:
    """Return a picture as the pipeline reads it (`as_line`), a `PIL.Image.Image`.

    Args:
        content: Of the file.

    Raises:
        BadSource: It cannot be read, or has one colour.
        ImportError: Pillow is not installed.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise ImportError("Pictures are read by Pillow, which is not installed: pip install pillow") from error
    from ...pipeline_image_to_text import as_line

    try:
        picture = as_line(Image.open(io.BytesIO(content)))
    except Image.DecompressionBombError as error:
        raise BadSource("a picture of too many pixels") from error
    except Exception as error:  # each form has its own
        raise BadSource("not readable as a picture") from error
    if all(low == high for low, high in picture.getextrema()):
        raise BadSource("a picture of one colour")
    return picture
