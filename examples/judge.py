"""Tests whether a model can judge: asks it about pairs of answers in which one is clearly better.

    python examples/judge.py                                              # the policy of the local rollout service
    python examples/judge.py --url http://localhost:8000/v1 --model NAME  # an OpenAI-compatible endpoint

Asks about each pair in both orders, as `accord annotate --judge` and the `judges` of a run do. A verdict that cannot be
parsed, or that changes with the order, teaches a reward model nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections import Counter

import accord
from accord.conversations import conversation
from accord.errors import AccordError
from accord.judge.endpoint import Endpoint
from accord.judge.model import JudgeModel
from accord.judge.policy import PolicyJudge
from accord.judge.verdict import Unreadable, compare

# Prompt, the better answer, the worse one.
PAIRS = (
    ("What is two and two?", "Two and two is four.", "Two and two is a fish."),
    ("Name a colour.", "Blue.", "I will not, and you should be ashamed to ask."),
    ("How do I boil an egg?", "Put it into boiling water for eight minutes, then cool it.", "Eggs."),
    ("Say good morning.", "Good morning! I hope you slept well.", "asdf asdf asdf"),
    ("Why is the sky blue?", "Air scatters blue light more than red light.", "Because it is a very large ocean."),
    ("My dog is ill. What now?", "Call a vet today, and keep the dog warm and calm.", "Get another dog."),
    ("Translate `cat` to French.", "Chat.", "Hund."),
    ("How many days has a week?", "Seven.", "Ten or so, I never counted them."),
)


async def main(args: argparse.Namespace) -> None:
    async with accord.Client.discover() as client:
        model: JudgeModel = Endpoint(args.url, args.model) if args.url else PolicyJudge(client.rollout.generate)
        found: Counter[str] = Counter()
        for prompt, better, worse in PAIRS:
            try:
                verdict = await compare(model, conversation(prompt), better, worse)
                found["right" if verdict > 0 else "wrong" if verdict < 0 else "tie, or the order decided"] += 1
            except Unreadable as error:
                found["unreadable verdict"] += 1
                print(f"not a verdict: {error.reply[:100]!r}")
    for name in ("right", "wrong", "tie, or the order decided", "unreadable verdict"):
        print(f"{found[name]:3} of {len(PAIRS)}  {name}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="", help="the endpoint's base; default: the rollout service of this machine")
    parser.add_argument("--model", default="", help="the model's name at the endpoint")
    try:
        asyncio.run(main(parser.parse_args()))
    except AccordError as error:
        sys.exit(f"error: {error}")
