"""Adapters that a run saved: a folder goes in, a model that answers as that trial comes out.

Two folders are the ends of a line, of which any position can be loaded as well (`dial`).
"""

from ermgap.adapters.dial import (
    line_file,
    load_line,
    lower_end,
    position_of,
    require_line,
)
from ermgap.adapters.saved_adapter import config_of, load_adapter

__all__ = [
    "config_of",
    "line_file",
    "load_adapter",
    "load_line",
    "lower_end",
    "position_of",
    "require_line",
]
