"""The front of a sweep: records go in, an object with its points, its front and its choices comes out."""

from analysis.front.front import COMPLETE, SCORES, FrontInfo, Point

__all__ = ["COMPLETE", "FrontInfo", "Point", "SCORES"]
