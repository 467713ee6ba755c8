"""The package a compile leaves behind: written whole or not at all, and checked when it is loaded."""
