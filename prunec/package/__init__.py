"""The package on disk: written whole or not at all, the same bytes for the same inputs."""
