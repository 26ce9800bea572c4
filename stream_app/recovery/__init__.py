"""What failed and what was accepted: kept, found, repaired, sent again, corrected, and accounted for."""
