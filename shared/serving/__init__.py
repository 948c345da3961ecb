"""From a validated request to its result: endpoints, the context of a request, leases, stored answers."""
