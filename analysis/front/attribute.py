"""The sensitive attribute that a sweep is about, and how pages name it.

attribute = Attribute.of(records.sweep)
attribute.title, attribute.metric("max_gap").title     # gender, Largest gap by gender
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ermgap import attributes
from ermgap.config import GENDER, METRICS, NOT_STATED, Metric


@dataclass(frozen=True)
class Attribute:
    """An attribute by its `columns`, crossed if several; `provenances` are those of a sweep."""

    columns: tuple[str, ...]
    provenances: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, sweep: Mapping) -> Attribute:
        """The one that drives a sweep, of what sweep.yaml holds; gender where it names none."""
        objective = (sweep.get("config") or {}).get("objective") or {}
        columns = tuple(objective.get("attribute") or (GENDER,))
        return cls(columns, sweep.get("provenance") or {})

    def other(self, columns: Sequence[str]) -> Attribute:
        """Another attribute of the same sweep."""
        return Attribute(tuple(columns), self.provenances)

    @property
    def title(self) -> str:
        """Its name, such as `gender & accent`."""
        return attributes.title(self.columns)

    @property
    def group(self) -> str:
        """What the utterances of one side of one cell have in common: `language and gender`."""
        return self.title if "language" in self.columns else f"language and {self.title}"

    @property
    def provenance(self) -> str:
        """Where its values come from: `annotated`, or that of each column."""
        sources = [self.provenances.get(name) or NOT_STATED for name in self.columns]
        if len(set(sources)) == 1:
            return sources[0]
        pairs = zip(self.columns, sources, strict=True)
        return "; ".join(f"{name} {source}" for name, source in pairs)

    def metric(self, name: str) -> Metric:
        """A metric of METRICS, a difference with the attribute in its title."""
        return METRICS[name].titled(self.title)
