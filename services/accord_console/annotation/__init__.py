"""Annotating in the browser: a task as a page, a form as feedback."""
