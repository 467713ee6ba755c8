"""Canonicalisation: one form for all exporters. See pipeline.py for the order of the passes."""

from prunec.passes.canonicalise.pipeline import canonicalise

__all__ = ["canonicalise"]
