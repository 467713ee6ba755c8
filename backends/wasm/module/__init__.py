"""The ES module of a package and its types; no Python."""
