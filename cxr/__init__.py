"""Chest radiographs from bytes to a judged model: the library that stages, flows and the service share."""
