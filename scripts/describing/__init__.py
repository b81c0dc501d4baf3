"""Class descriptions written by a language model, behind any endpoint with OpenAI's chat completions."""
