"""The web page that translates what visitors send."""
