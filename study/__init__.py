"""The study: published systems as presets, each trained on the same split as ours, and one report on all of them."""
