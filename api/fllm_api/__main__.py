"""``python -m fllm_api`` is ``furiosa-llm``."""

from fllm_api.cli import main

if __name__ == "__main__":
    main()
