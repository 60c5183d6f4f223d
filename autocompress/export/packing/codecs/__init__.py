"""Ways to write a tensor, one a file; the packer takes the shortest."""
