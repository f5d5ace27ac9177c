"""Deadlines, disconnects, draining and the event-loop watchdog."""
