"""Local deployment of the CloudFormation templates: identity, creation and update of each resource type."""
