"""Data by name: one module per source, each turning a place into arrays in memory."""

from __future__ import annotations

from autocompress.evaluation.data_sources.registry import SOURCES, Loaded, load

__all__ = ["SOURCES", "Loaded", "load"]
