"""A backend on FuriosaAI's RNGD, through the vendor's own package ``furiosa_llm``, imported nowhere else."""
