"""The figures of a step: computed, averaged, written."""
