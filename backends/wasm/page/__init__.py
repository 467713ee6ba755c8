"""The demo page of a package; no Python."""
