"""The exchange of weights between services: published folders, fetched by URI scheme and verified."""
