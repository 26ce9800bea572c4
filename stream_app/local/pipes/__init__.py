"""The pipe runner: sources, patterns and targets of EventBridge Pipes."""
