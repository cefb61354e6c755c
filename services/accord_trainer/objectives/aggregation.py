"""How token losses become one number: the weights of tokens beside a plain mean over the minibatch's tokens."""

from __future__ import annotations

from torch import Tensor


def token_weights(mask_BR: Tensor, limit_B: Tensor, how: str) -> Tensor | None:
    """Factors, (B, 1), for token losses that are summed and divided by the number of tokens of `mask_BR`, the whole
    minibatch; None where that is the mean already.

    - token: every token counts alike (DAPO, arXiv 2503.14476, equation 8).
    - sequence: every response counts alike (GRPO, arXiv 2402.03300, equation 3).
    - constant: divided by responses times `limit_B`, so that a token's weight knows no length (Dr. GRPO, arXiv
      2503.20783).
    Responses without a token that counts are no responses.
    """
    if how == "token":
        return None
    length_B = mask_BR.sum(1)
    responses = (length_B > 0).sum()
    divisor_B = length_B.clamp(min=1) if how == "sequence" else limit_B
    return (mask_BR.sum() / (responses * divisor_B))[:, None]
