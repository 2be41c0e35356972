"""The REST interface, one file a subject; routes are thin and what they share stands beside them."""
