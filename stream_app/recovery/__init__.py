"""What failed: dead letters, hydrate, the failure store."""
