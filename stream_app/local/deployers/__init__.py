"""What the local deployer does for each type of resource: name it, make it, leave it out with a reason."""
