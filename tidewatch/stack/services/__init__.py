"""One module a group of servers; each offers `services(settings)`."""
