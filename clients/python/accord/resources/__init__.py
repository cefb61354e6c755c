"""The SDK's areas: one class for each service, reached as attributes of `accord.Client`."""
