"""Model packages: a folder with `metadata.json` and a model, as Audacity reads them."""
