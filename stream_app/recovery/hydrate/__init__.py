"""Dead letters in, full payloads out: from every shape that a dead letter has, into the failure store."""
