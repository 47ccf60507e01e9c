"""How sure a gap is: predictions go in, intervals, null bands and paired differences come out."""

from analysis.statistics.evidence import Evidence, PointEvidence
from analysis.statistics.speaker_sums import SpeakerSums, largest_gap

__all__ = ["Evidence", "PointEvidence", "SpeakerSums", "largest_gap"]
