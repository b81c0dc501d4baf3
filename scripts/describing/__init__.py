"""Descriptions of classes by a language model, from any endpoint with OpenAI's chat completions."""
