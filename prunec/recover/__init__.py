"""Training against the dense model, without labels (the [torch] extra): `recovery.recover`."""
