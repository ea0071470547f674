"""The configuration reference, from the Structs of the configuration."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from streams.config_reference import reference

__all__ = ["FOLDER", "rendered"]

FOLDER: Final = Path(__file__).resolve().parent


def rendered() -> dict[str, str]:
    """The file by its name."""
    return {"CONFIGURATION.md": reference()}
