"""The distributions of plugins: find, install, upgrade, remove and lock them."""
