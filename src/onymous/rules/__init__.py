"""The rules: pure functions, no clock, no chance, no files, no sockets."""
