"""Back ends, one folder per target family, imported as prunec.backends."""
