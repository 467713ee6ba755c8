"""Importance criteria, one file each: statistics in, one score per channel out."""
