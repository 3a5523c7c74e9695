"""The API's own description, as OpenAPI."""
