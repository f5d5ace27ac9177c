"""What clients ask for, as typed values: chats and completions, in the fields of OpenAI's and vLLM's APIs."""
