"""Adapters that a run saved: a folder goes in, a model that answers as that trial comes out."""

from ermgap.adapters.saved_adapter import config_of, load_adapter

__all__ = ["config_of", "load_adapter"]
