"""Web page and JSON API to try models on: one process, one request at a time, no state, no connections elsewhere."""
