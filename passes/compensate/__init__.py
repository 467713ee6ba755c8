"""Compensation: refit what remains after a cut to the dense model's outputs."""
