"""Great Expectations at three doors: every source's records, the assembled manifest, and what the service was sent.

A door is a module with its expectations in one list, each with its reason in `notes` and, where a failure stops
nothing, `severity="warning"`.
"""
