"""The pipe runner: runs the EventBridge Pipes of the template with their sources, filters and targets."""
