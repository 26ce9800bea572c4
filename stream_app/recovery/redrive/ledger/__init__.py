"""Who sends what: claims and marks, so that no two appliers send the same record."""
