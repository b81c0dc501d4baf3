"""Descriptions of classes, asked of any endpoint that speaks OpenAI's chat completions."""
