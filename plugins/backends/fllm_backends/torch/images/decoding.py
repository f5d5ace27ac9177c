"""Decode image files. This runs in a worker process, so it imports neither torch nor numpy."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable

from fllm.errors import RequestError
from fllm.sandbox import ResourceLimits

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "MPO")
"""Pillow's names of the formats that are read. An animation is its first image."""
MAX_PIXELS = 40_000_000
HEADER_BYTES = 8
"""Width and height, 4 bytes each, big-endian. The pixels follow: red, green and blue, row by row."""

LIMITS = ResourceLimits(
    subject="the image",
    activity="decoding",
    cpu_seconds=10.0,
    wall_seconds=30.0,
    memory=1 << 30,
    output=3 * MAX_PIXELS + HEADER_BYTES,
)


def make_decoder(_: None) -> Callable[[bytes], bytes]:
    """Return the function that the worker process runs for each file."""
    from PIL import Image, ImageOps

    Image.init()
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    warnings.simplefilter("error", Image.DecompressionBombWarning)

    def decode(file: bytes) -> bytes:
        try:
            with Image.open(io.BytesIO(file), formats=FORMATS) as image:
                upright = ImageOps.exif_transpose(image).convert("RGB")
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise RequestError(f"an image has more than {MAX_PIXELS} pixels", param="messages") from None
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001  the decoders of Pillow raise almost anything
            known = ", ".join(FORMATS[:-1])
            raise RequestError(
                f"an image can't be decoded: it is damaged, or not in one of the formats {known}",
                param="messages",
            ) from None
        size = upright.width.to_bytes(4, "big") + upright.height.to_bytes(4, "big")
        return size + upright.tobytes()

    return decode
