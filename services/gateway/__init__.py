"""The OpenAI Images API over HTTP."""
