"""How sure a gap is: predictions go in, intervals, null bands and paired differences come out."""

from analysis.statistics.evidence import Backing, Evidence
from analysis.statistics.panel import Panel, largest_of

__all__ = ["Backing", "Evidence", "Panel", "largest_of"]
