"""C source of the runner; no Python."""
