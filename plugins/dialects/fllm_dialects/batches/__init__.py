"""`/v1/files` and `/v1/batches`: requests as lines of a file, answered at low priority."""
