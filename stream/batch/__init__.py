"""`standin batch`: many files, on this machine or a Ray cluster; every output is there whole, once, or not at all."""
