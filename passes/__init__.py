"""Graph to graph passes, imported as prunec.passes."""
