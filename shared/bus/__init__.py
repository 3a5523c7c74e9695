"""The bus: one Protocol (`base`), one real implementation (`nats`), one shipped fake (`memory`)."""
