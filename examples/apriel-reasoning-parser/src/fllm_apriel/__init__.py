"""The reasoning of ServiceNow's Apriel models."""
