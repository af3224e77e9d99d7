"""Onymous: the open, self-hosted identity layer."""
