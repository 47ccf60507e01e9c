"""The front of a sweep: records go in, its points, the front among them and choices come out."""

from analysis.front.attribute import Attribute
from analysis.front.front import COMPLETE, FrontInfo, Point

__all__ = ["COMPLETE", "Attribute", "FrontInfo", "Point"]
