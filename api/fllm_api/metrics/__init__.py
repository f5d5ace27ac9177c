"""Call metrics collectors safely and on time."""
