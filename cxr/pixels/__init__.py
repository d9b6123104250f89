"""From the bytes of one film to the model's square, and what the film is: one path for ingest and the service."""
