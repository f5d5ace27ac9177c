"""Images in prompts: decode the files, and prepare them as the model's own processor does."""
