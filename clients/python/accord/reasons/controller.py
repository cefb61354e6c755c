"""Reasons of the controller, its launchers and the operator."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "CLOSING": Reason(
        "The controller, or a scorer of the reward service, is shutting down.",
        "Repeat the call, or resume the run, when it is back.",
    ),
    "CONFIG_MISSING": Reason(
        "A pod is waiting for a Secret, a ConfigMap or a volume that does not exist.",
        "Create the object that the message names; the pod then starts automatically.",
    ),
    "CONFLICT": Reason(
        "A Kubernetes object was changed at the same time.",
        "Repeat the call.",
    ),
    "CONTROLLER_RUNS": Reason(
        "Another controller uses the same state folder.",
        "Use that controller, stop it, or pass a different `--state-dir`.",
    ),
    "ETAG_MISMATCH": Reason(
        "The run has changed since it was read.",
        "Read the run again, then repeat the call with its new etag.",
    ),
    "FORBIDDEN": Reason(
        "Kubernetes does not allow the controller's service account to do this.",
        "Give the service account the permission that the message names.",
    ),
    "GIVEN_ADDRESSES": Reason(
        "The run uses rollout services that the controller did not start.",
        "Set `rollout.engine` to start an engine instead, or pass different addresses to `accord runs swap-engine`.",
    ),
    "IMAGE_MISSING": Reason(
        "The image of a pod cannot be pulled.",
        "Push the image, or correct its name or the pull secret in the template.",
    ),
    "INVALID_SPEC": Reason(
        "The spec of the run is invalid; the field violations name every problem.",
        "Correct the fields that the message names; the reference of the run file lists their limits.",
    ),
    "INVALID_SWAP": Reason(
        "The request for the engine swap is invalid; the field violations name every problem.",
        "Correct the fields that the message names.",
    ),
    "IN_USE": Reason(
        "The requested rollout service already serves the run.",
        "Choose a service that the run does not use yet.",
    ),
    "KUBERNETES": Reason(
        "The Kubernetes API reported an internal error.",
        "Read the message; the controller retries automatically where possible.",
    ),
    "KUBERNETES_UNREACHABLE": Reason(
        "The Kubernetes API did not answer.",
        "Check the cluster and the network; the call can be repeated.",
    ),
    "LEDGER_BEHIND": Reason(
        "The trainer is ahead of the controller's record of the run.",
        "Restore the newest copy of the controller's database, or start a new run.",
    ),
    "LEDGER_CONFLICT": Reason(
        "The result of this step is already recorded; two controllers may be executing the same run.",
        "Let only one controller use the database.",
    ),
    "LEDGER_FILE_DAMAGED": Reason(
        "A file that the run recorded has changed.",
        "Restore an intact copy of the file.",
    ),
    "LEDGER_FILE_LOST": Reason(
        "A file that the run recorded is missing.",
        "Restore the file.",
    ),
    "LEDGER_INCOMPLETE": Reason(
        "The record of the run lacks an entry that it needs.",
        "Restore the controller's database from a backup, or start a new run.",
    ),
    "LEDGER_KIND": Reason(
        "An entry in the record of the run has an unexpected type.",
        "Use the version of Accord that created the record, or start a new run.",
    ),
    "MODEL_CHANGED": Reason(
        "The active policy of the run changed in the meantime.",
        "Check it with `accord models list`, then repeat the rollback.",
    ),
    "MODEL_NOT_FOUND": Reason(
        "The registry has no model with this name.",
        "List the models with `accord models list`.",
    ),
    "NAME_TAKEN": Reason(
        "A cancelled run already uses the name of this Run object.",
        "A cancelled run cannot be started again. Choose a different name for the object.",
    ),
    "NOTHING_TO_COMPARE": Reason(
        "For every prompt, all answers of the policy were equal.",
        "Raise `rollout.temperature`.",
    ),
    "NOTHING_TO_ROLL_BACK": Reason(
        "The run has no policy before the active one.",
        "Promote a different model with `accord models promote`.",
    ),
    "NOT_CONFORMING": Reason(
        "The new rollout service does not meet the engine contract, so the swap was refused.",
        "Correct the engine according to the message; `accord conformance` runs the checks.",
    ),
    "NOT_CONNECTED": Reason(
        "The controller is not connected to the services of the run yet.",
        "Wait until they have started, then repeat the call.",
    ),
    "NOT_EDITABLE": Reason(
        "The fields cannot be changed after the run was created.",
        "Change only the fields that the message lists as editable, or start a new run.",
    ),
    "NO_ADDRESS": Reason(
        "The address of a service is unknown.",
        "Set the address in the client, the controller or the trainer, according to the message.",
    ),
    "NO_CLUSTER": Reason(
        "No Kubernetes cluster is configured.",
        "Run in a pod, or set `KUBECONFIG`.",
    ),
    "NO_KEY": Reason(
        "The environment variable with the API key of a judge is not set.",
        "Set the variable that the message names in the environment of the controller.",
    ),
    "NO_LAUNCHER": Reason(
        "The controller does not start services (`--launcher none`).",
        "Start the service yourself and pass its address.",
    ),
    "NO_MODEL": Reason(
        "A model that the run names is no longer in the registry.",
        "Choose a different model; `accord models list` shows them.",
    ),
    "NO_PREFERENCES": Reason(
        "The run has no preferences in the training split.",
        "Add prompts or preferences.",
    ),
    "NO_SCORES": Reason(
        "No score could be computed for the answers.",
        "Check the retry events and into the log of the reward service, then resume the run.",
    ),
    "NO_SUCH_NAME": Reason(
        "The DNS name of the rollout services cannot be resolved.",
        "Check the name and its port; the services may still be starting.",
    ),
    "NO_SUCH_OBJECT": Reason(
        "A Kubernetes object does not exist.",
        "Check the namespace and the objects in it.",
    ),
    "NO_TEMPLATE": Reason(
        "The namespace has no template for the service.",
        "Deploy `k8s/base` with `components/operator`.",
    ),
    "NO_VERDICTS": Reason(
        "No judge gave a readable verdict.",
        "Let the judges answer in the form `Verdict: A`, or use other judges.",
    ),
    "OTHER_ENGINE": Reason(
        "The rollout service runs a different engine than the run needs, or computes differently.",
        "Start it with the `--engine`, `--dtype` or `--threads` that the message names.",
    ),
    "OTHER_THREADS": Reason(
        "The trainer computes with a different number of threads than this deterministic training began with.",
        "Set `--trainer-threads` or `OMP_NUM_THREADS` to the number that the message names.",
    ),
    "OTHER_TOKENIZER": Reason(
        "The tokenizer of the new rollout service differs from that of the run.",
        "Swap to an engine that serves the run's own model and tokenizer.",
    ),
    "PODS_REFUSED": Reason(
        "Kubernetes refuses to create the pods.",
        "Change the template or the policy that the message names.",
    ),
    "QUEUE_STUCK": Reason(
        "The simulated annotators receive none of the open tasks.",
        "Check with `accord annotators list` whether they are excluded.",
    ),
    "QUOTA_FULL": Reason(
        "The quota of the namespace is exhausted.",
        "Free some of it, or raise it; `kubectl get resourcequota` shows it.",
    ),
    "REFUSED_BY_KUBERNETES": Reason(
        "Kubernetes considers the object invalid.",
        "Correct the template or the spec according to the message.",
    ),
    "REPLAY_DIVERGED": Reason(
        "A repeated step of a deterministic run gave a different result.",
        "Resume the run on the original machine, or start a new run.",
    ),
    "REPLICA_DOWN": Reason(
        "Fewer rollout replicas serve than the run needs.",
        "Check the log of the rollout services, then resume the run or repeat the swap.",
    ),
    "RUN_ENDED": Reason(
        "The run has ended, so it does not accept this operation.",
        "Start a new run.",
    ),
    "RUN_EXISTS": Reason(
        "A run with this name already exists.",
        "Choose another `metadata.name`, or continue the existing run with `accord run --resume`.",
    ),
    "RUN_NOT_FOUND": Reason(
        "There is no run with this name.",
        "List the runs with `accord runs list`.",
    ),
    "SERVICE_DOWN": Reason(
        "A service did not answer in time.",
        "Check that it is running, and check its log.",
    ),
    "SERVICE_FAILED": Reason(
        "A service exited during its start.",
        "Read the end of its log, which the message contains.",
    ),
    "SERVICE_KEEPS_DYING": Reason(
        "A service was restarted several times and exited each time.",
        "Read the end of its log, which the message contains. Fix the cause, then resume the run.",
    ),
    "SWAP_UNDER_WAY": Reason(
        "Another engine swap of the run is in progress.",
        "Wait until it has finished.",
    ),
    "TOO_FEW_PROMPTS": Reason(
        "One of the splits, training or held-out, contains no prompt of the run.",
        "Add prompts; with 40 prompts, both splits almost certainly contain some.",
    ),
    "UNKNOWN_LAUNCHER": Reason(
        "No launcher with this name is installed.",
        "Correct `--launcher`; the message lists the available ones.",
    ),
    "UNSCHEDULABLE": Reason(
        "No node of the cluster can run the pod.",
        "Add a suitable node, or change the requests, the node selector or the tolerations of the template.",
    ),
    "WEIGHTS_GONE": Reason(
        "The weights of the model no longer exist.",
        "Promote a different model.",
    ),
}
