"""What the service is made of; `service.py` wires it together."""
