"""Draws behind one interface: uniform, popularity, mixed, listed."""
