"""Imports every module that registers commands; importing this makes the command line complete."""
