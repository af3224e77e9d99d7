"""Checks, simulation and benchmarks: drives the product from outside."""
