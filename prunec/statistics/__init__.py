"""One streaming pass over calibration data: means, second moments and cross-moments per layer."""
