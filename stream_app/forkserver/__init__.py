"""The fork server: loads everything once, and forks a record processor for each shard."""
