"""One module a group of commands; each offers `register(app)`, which adds its commands to the command line."""
