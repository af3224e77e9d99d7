"""HTTP and queues out: identities in, request out."""
