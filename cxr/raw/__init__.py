"""The bytes of a source as published: addresses, downloads, archives, checksums."""
