"""The embedded AWS: moto over h2c and its corrections, deployer, pipe and function runners."""
