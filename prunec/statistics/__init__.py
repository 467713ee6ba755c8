"""One streaming pass over calibration data: means, second moments and covariances of what every layer consumes."""

from prunec.statistics.collect import DEFAULT_LIMITS, LayerStatistics, Limits, Needs, Progress, collect

__all__ = ["DEFAULT_LIMITS", "LayerStatistics", "Limits", "Needs", "Progress", "collect"]
