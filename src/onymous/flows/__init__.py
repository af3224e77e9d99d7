"""Read, decide, write: one named transaction each."""
