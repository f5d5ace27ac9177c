"""Grammar backends: compile constraints and mask the tokens that they do not allow."""
