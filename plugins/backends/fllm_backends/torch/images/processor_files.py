"""Files of a model directory with the settings of its processor."""

from __future__ import annotations

PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json")
"""Files with the settings of a processor, of which images are one part."""
