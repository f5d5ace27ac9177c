"""A backend for FuriosaAI's RNGD devices. Only this package imports the vendor's ``furiosa_llm``."""
