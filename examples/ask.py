"""Ask a policy a question through the blocking SDK: python examples/ask.py "How do I thank my neighbour?"

Uses the rollout service on this machine, or the one at --rollout HOST:PORT.
"""

from __future__ import annotations

import argparse
import sys

import accord
from accord.errors import AccordError
from accord.types import v1 as types_v1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("question")
    parser.add_argument("--rollout", metavar="HOST:PORT", help="default: the service on this machine")
    parser.add_argument("--answers", type=int, default=3, help="number of answers to generate")
    parser.add_argument("--max-new-tokens", type=int, default=48)
    parser.add_argument("--temperature", type=float, default=1.0, help="0: always the likeliest token")
    args = parser.parse_args()

    sampling = types_v1.SamplingParams(max_new_tokens=args.max_new_tokens, temperature=args.temperature)
    try:
        with accord.SyncClient(rollout=args.rollout) if args.rollout else accord.SyncClient.discover() as client:
            status = client.rollout.status()
            print(f"{status.engine} engine, weights version {status.version}, digest {status.digest[:12]}")
            for response in client.rollout.generate([args.question], n=args.answers, sampling=sampling):
                if response.HasField("failure"):
                    print(f"no answer {response.failure.index}: {response.failure.failure.message}")
                else:
                    print(f"- {response.sample.text.strip()}  ({len(response.sample.response_token_ids)} tokens)")
    except AccordError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
