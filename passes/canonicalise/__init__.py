"""Canonical form: unique names, folded constants, static shapes, weights as initializers."""
