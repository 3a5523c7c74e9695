"""Where LoRAs come from: a directory of the server, the model hub, or a URL."""
