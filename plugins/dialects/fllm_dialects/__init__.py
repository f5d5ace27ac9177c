"""APIs of other servers and companies, each a plugin with routes: requests become `fllm.ChatRequest`s."""
