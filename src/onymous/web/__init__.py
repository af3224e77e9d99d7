"""HTTP in: routes, credentials, wire formats."""
