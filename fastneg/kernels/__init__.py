"""The ground: plain functions over arrays, compiled by Numba. They validate nothing."""
