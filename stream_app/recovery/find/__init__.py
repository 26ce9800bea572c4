"""Looking into the failure store: which failures, from what causes, with what in them."""
