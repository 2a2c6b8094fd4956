"""From a look-up request to the content that answers it."""
