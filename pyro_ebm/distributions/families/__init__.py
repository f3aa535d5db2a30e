"""One file for each family of distributions: what a user calls."""
