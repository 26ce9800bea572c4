"""The fork server: loads the application once and forks a record processor for each shard."""
