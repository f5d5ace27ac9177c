"""Replicas in virtual time, as discrete events: with the scheduler, cache and routing of the product."""
