"""Plans: what will be sent again, repaired and foretold before anything is sent."""
