"""Adapters that a run saved: a folder goes in, a model that answers as the trial did comes out."""

from ermgap.adapters.saved_adapter import load_adapter, settings_of

__all__ = ["load_adapter", "settings_of"]
