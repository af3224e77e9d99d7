"""Numbered migrations, the same files for every engine."""
