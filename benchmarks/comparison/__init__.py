"""Compare the server with other engines: the loads, the servers, their measurements, and the table."""
