"""From a look-up to the content that is sent."""
