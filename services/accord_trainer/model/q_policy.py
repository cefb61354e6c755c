"""A policy with the heads of implicit language Q-learning on its trunk: V, two heads of Q, and their targets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import Parameter

from accord_trainer.algorithm import Start
from accord_trainer.distributed.world import passing
from accord_trainer.model.packing import Row, pad
from accord_trainer.model.policy import Lower, Policy, token_logprobs
from accord_trainer.objectives.q_learning import follow


@dataclass(frozen=True)
class QOutputs:
    """The heads' outputs for the responses of some rows, H = 2 heads of Q; `members` names the responses, the other
    tensors follow its order."""

    members: Tensor
    # log pi_beta of each token; 0 if it was not requested.
    logprobs_BR: Tensor
    values_BR: Tensor
    # The value of the state after the last token.
    final_value_B: Tensor
    q_HBR: Tensor
    # log softmax(Q) of each token.
    q_logprobs_HBR: Tensor
    # The smaller of the targets' Q (Fujimoto et al. 2018, arXiv 1802.09477).
    target_q_BR: Tensor


class QHeads(nn.Module):
    """Two heads without bias, (V, D), and their targets, which get no gradient."""

    def __init__(self, features: int, vocabulary: int, seed: int) -> None:
        """The second head starts as the negative of the first, so that they differ and their mean is 0: the
        guided policy starts as the model itself. The scale, 1/D, gives values well below a reward of 1."""
        super().__init__()
        self.first, self.second, self.first_target, self.second_target = (
            nn.Linear(features, vocabulary, bias=False, device="meta") for _ in range(4)
        )
        generator = torch.Generator().manual_seed(seed % 2**63)
        noise_VD = torch.randn(vocabulary, features, generator=generator) / features
        self.first.weight, self.second.weight = Parameter(noise_VD), Parameter(-noise_VD)
        self.first_target.weight = Parameter(noise_VD.clone(), requires_grad=False)
        self.second_target.weight = Parameter(-noise_VD, requires_grad=False)

    def learning(self) -> tuple[nn.Linear, nn.Linear]:
        """The heads that are trained."""
        return self.first, self.second

    def targets(self) -> dict[str, Tensor]:
        """The targets' weights by name, live."""
        return {"first_target": self.first_target.weight.detach(), "second_target": self.second_target.weight.detach()}

    def mean_weight(self) -> Tensor:
        """The weight of the mean of both heads' Q, (V, D)."""
        return 0.5 * (self.first.weight.detach() + self.second.weight.detach())

    @torch.no_grad()
    def follow(self, rate: float) -> None:
        """Moves the targets towards their heads."""
        follow(self.first_target.weight, self.first.weight, rate)
        follow(self.second_target.weight, self.second.weight, rate)


class QPolicy(Policy):
    """A Policy whose value head is V."""

    q: QHeads

    def heads(self, start: Start) -> list[nn.Module]:
        self.q = QHeads(self.head.in_features, self.head.out_features, start.seed)
        return [*super().heads(start), self.q]

    def value_parameters(self) -> dict[str, Parameter]:
        """The parameters of V and of the two heads of Q; the targets are not trained."""
        named = {f"q.{name}": parameter for name, parameter in self.q.named_parameters() if parameter.requires_grad}
        return super().value_parameters() | named

    @passing("passes")
    def q_outputs(
        self, rows: Sequence[Row], width: int, lower: Lower, *, logprobs: bool = True, detach: bool = False
    ) -> QOutputs:
        """The heads on the rows of one pass. Without `logprobs` the language model's head is not computed;
        `detach` keeps the losses of Q and V out of the trunk."""
        packed = self._collate(rows)
        lengths = [len(response) for response in packed.responses]
        tokens_N = torch.cat(packed.responses)
        ones_N, logprobs_N = torch.ones_like(tokens_N, dtype=torch.float32), torch.zeros(len(tokens_N))
        assert self.value_head is not None
        with self._autocast():
            before_ND, after_BD = self.states(packed, rows, lower)
            if logprobs:
                logprobs_N, _ = token_logprobs(
                    before_ND, tokens_N, ones_N, self.head, entropy=False, chunk=self.logits_chunk
                )
            self.costs.heads(rows, len(self.q.learning()) - (0 if logprobs else 1))
            if detach:
                before_ND, after_BD = before_ND.detach(), after_BD.detach()
            found = [
                token_logprobs(before_ND, tokens_N, ones_N, q, entropy=False, chunk=self.logits_chunk)[0]
                for q in self.q.learning()
            ]
        states_ND = before_ND.float()
        targets = (self.q.first_target, self.q.second_target)
        return QOutputs(
            members=torch.tensor(packed.members),
            logprobs_BR=pad(logprobs_N.cpu(), lengths, width),
            values_BR=pad(self.value_head(states_ND)[:, 0].cpu(), lengths, width),
            final_value_B=self.value_head(after_BD.float())[:, 0].cpu(),
            q_HBR=torch.stack([pad(_chosen(states_ND, q, tokens_N), lengths, width) for q in self.q.learning()]),
            q_logprobs_HBR=torch.stack([pad(one_N.cpu(), lengths, width) for one_N in found]),
            target_q_BR=torch.minimum(
                *(pad(_chosen(states_ND.detach(), q, tokens_N), lengths, width) for q in targets)
            ),
        )


def _chosen(states_ND: Tensor, head: nn.Linear, tokens_N: Tensor) -> Tensor:
    """Q of the tokens in the data, (N,): only their rows of the weight are read."""
    return (states_ND * head.weight.index_select(0, tokens_N)).sum(-1).cpu()
