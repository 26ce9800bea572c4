"""Online anomaly detectors: they score a value, then learn it, in the order of arrival."""
