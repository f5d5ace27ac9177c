"""Entry point of ``python -m fllm_api``, the same as ``furiosa-llm``."""

from fllm_api.cli import main

if __name__ == "__main__":
    main()
