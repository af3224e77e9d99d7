"""Databases: what may be asked of one, and the two engines that answer."""
