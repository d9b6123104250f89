"""From records to the manifest: labels, copies, splits, balance, and the shards that hold the pixels."""
