"""The machine a program runs on: process, device, memory, logs, files, and errors on a terminal."""
