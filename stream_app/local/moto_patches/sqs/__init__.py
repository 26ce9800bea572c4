"""SQS queues at the size of a real backlog."""
