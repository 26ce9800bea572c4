"""Application of plans: batch by batch, each record claimed before it is sent."""
