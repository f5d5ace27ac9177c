"""The lock of third-party plugins: their versions and the digests of their files."""
