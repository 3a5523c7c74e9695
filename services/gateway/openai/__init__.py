"""The OpenAI Images API as clients send it: fields, their values, and what becomes of them."""
