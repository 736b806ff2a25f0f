"""Public corpora: what there is of them, and how they come from their places into the `text` layout."""
