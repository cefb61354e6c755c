"""The stages of the loop. Each can be entered again at any time: recorded work is read back, and only the rest is
done."""
