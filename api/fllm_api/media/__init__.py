"""Files that requests contain or refer to."""
