"""Pages, templates and static files; calls flows only."""
