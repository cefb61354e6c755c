"""Reasons of the controller, its launchers and the operator."""

from __future__ import annotations

from accord.reasons.reason import Reason

REASONS = {
    "CLOSING": Reason(
        "The controller, or a scorer of the reward service, is shutting down.",
        "Repeat the call, or resume the run, when it is back.",
    ),
    "CONFIG_MISSING": Reason(
        "A pod waits for a Secret, a ConfigMap or a volume that does not exist.",
        "Create what the message names; the pod then starts by itself.",
    ),
    "CONFLICT": Reason(
        "An object of Kubernetes was changed at the same time.",
        "Repeat the call.",
    ),
    "CONTROLLER_RUNS": Reason(
        "Another controller uses the same state folder.",
        "Use that controller, stop it, or give another `--state-dir`.",
    ),
    "ETAG_MISMATCH": Reason(
        "The run has changed since it was read.",
        "Read the run again, then repeat the call with its new etag.",
    ),
    "FORBIDDEN": Reason(
        "Kubernetes does not allow this to the controller's service account.",
        "Give the service account the permission that the message names.",
    ),
    "GIVEN_ADDRESSES": Reason(
        "The run uses rollout services that the controller did not start.",
        "Set `rollout.engine` to start an engine instead, or pass other addresses to `accord runs swap-engine`.",
    ),
    "IMAGE_MISSING": Reason(
        "The image of a pod cannot be pulled.",
        "Push the image, or correct its name or the pull secret in the template.",
    ),
    "INVALID_SPEC": Reason(
        "The spec of the run is wrong; the field violations name every problem.",
        "Correct the fields that the message names; the reference of the run file has their limits.",
    ),
    "INVALID_SWAP": Reason(
        "The engine swap is described wrongly; the field violations name every problem.",
        "Correct the fields that the message names.",
    ),
    "IN_USE": Reason(
        "The rollout service to switch to serves the run already.",
        "Name a service that the run does not use yet.",
    ),
    "KUBERNETES": Reason(
        "The Kubernetes API reported an internal error.",
        "Read the message; the controller repeats what it can.",
    ),
    "KUBERNETES_UNREACHABLE": Reason(
        "The Kubernetes API did not answer.",
        "Check the cluster and the network; the call may be repeated.",
    ),
    "LEDGER_BEHIND": Reason(
        "The trainer is ahead of the controller's record of the run.",
        "Restore the newest copy of the controller's database, or start a new run.",
    ),
    "LEDGER_CONFLICT": Reason(
        "The result of this step is recorded already, as if two controllers executed the same run.",
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
        "An entry in the record of the run has another type than expected.",
        "Use the version of Accord that made the record, or start a new run.",
    ),
    "MODEL_CHANGED": Reason(
        "The active policy of the run changed in the meantime.",
        "Look at it again with `accord models list`, then repeat the rollback.",
    ),
    "MODEL_NOT_FOUND": Reason(
        "The registry has no model of this name.",
        "List the models with `accord models list`.",
    ),
    "NAME_TAKEN": Reason(
        "A cancelled run has the name of this Run object.",
        "Give the object another name; a cancelled run cannot be started again.",
    ),
    "NOTHING_TO_COMPARE": Reason(
        "The policy gave equal answers to every prompt.",
        "Raise `rollout.temperature`.",
    ),
    "NOTHING_TO_ROLL_BACK": Reason(
        "The run has no policy before the active one.",
        "Promote another model with `accord models promote`.",
    ),
    "NOT_CONFORMING": Reason(
        "The new rollout service does not meet the engine contract, so the swap was refused.",
        "Correct the engine as the message says; `accord conformance` runs the checks.",
    ),
    "NOT_CONNECTED": Reason(
        "The controller has no connection to the services of the run yet.",
        "Wait until they have started, then repeat the call.",
    ),
    "NOT_EDITABLE": Reason(
        "The fields cannot be changed after the run was created.",
        "Change only fields that the message lists as editable, or start another run.",
    ),
    "NO_ADDRESS": Reason(
        "The address of a service is not known.",
        "Give the address, as the message says for the client, the controller or the trainer.",
    ),
    "NO_CLUSTER": Reason(
        "No Kubernetes cluster is configured.",
        "Run in a pod, or set `KUBECONFIG`.",
    ),
    "NO_KEY": Reason(
        "The environment variable with the API key of a judge is not set.",
        "Set the variable that the message names for the controller.",
    ),
    "NO_LAUNCHER": Reason(
        "The controller starts no services (`--launcher none`).",
        "Start the service yourself and pass its address.",
    ),
    "NO_MODEL": Reason(
        "A model that the run names is no longer in the registry.",
        "Name another model; `accord models list` shows them.",
    ),
    "NO_PREFERENCES": Reason(
        "The run has no preferences in the training split.",
        "Add prompts or preferences.",
    ),
    "NO_SCORES": Reason(
        "No score could be computed for the answers.",
        "Look at the retry events and into the log of the reward service, then resume the run.",
    ),
    "NO_SUCH_NAME": Reason(
        "The DNS name of the rollout services cannot be resolved.",
        "Check the name and its port; the services may still be starting.",
    ),
    "NO_SUCH_OBJECT": Reason(
        "An object of Kubernetes does not exist.",
        "Check the namespace and what is deployed in it.",
    ),
    "NO_TEMPLATE": Reason(
        "The namespace has no template from which the service could be started.",
        "Deploy `k8s/base` with `components/operator`.",
    ),
    "NO_VERDICTS": Reason(
        "No judge gave a verdict that could be read.",
        "Let the judges answer in the form `Verdict: A`, or use other judges.",
    ),
    "OTHER_ENGINE": Reason(
        "The rollout service runs another engine, or computes in another way, than the run needs.",
        "Start it with the `--engine`, `--dtype` or `--threads` that the message names.",
    ),
    "OTHER_THREADS": Reason(
        "The trainer computes with another number of threads than this deterministic training began with.",
        "Set `--trainer-threads` or `OMP_NUM_THREADS` to the number that the message names.",
    ),
    "OTHER_TOKENIZER": Reason(
        "The new rollout service has another tokenizer than the run began with.",
        "Swap to an engine that serves the run's own model and tokenizer.",
    ),
    "PODS_REFUSED": Reason(
        "Kubernetes refuses to create the pods.",
        "Change the template or the policy that the message names.",
    ),
    "QUEUE_STUCK": Reason(
        "The simulated annotators get none of the open tasks.",
        "Check whether they are excluded, with `accord annotators list`.",
    ),
    "QUOTA_FULL": Reason(
        "The quota of the namespace is used up.",
        "Free some of it (`kubectl get resourcequota`), or raise it.",
    ),
    "REFUSED_BY_KUBERNETES": Reason(
        "Kubernetes considers the object invalid.",
        "Correct the template or the spec as the message says.",
    ),
    "REPLAY_DIVERGED": Reason(
        "A repeated step of a deterministic run gave another result.",
        "Resume the run on the original machine, or start a new run.",
    ),
    "REPLICA_DOWN": Reason(
        "Fewer rollout replicas serve than the run needs.",
        "Look into the logs of the rollout services, then resume the run or repeat the swap.",
    ),
    "RUN_ENDED": Reason(
        "The run has ended, so this cannot be done with it.",
        "Start a new run.",
    ),
    "RUN_EXISTS": Reason(
        "A run of this name exists already.",
        "Choose another `metadata.name`, or continue the existing run with `accord run --resume`.",
    ),
    "RUN_NOT_FOUND": Reason(
        "There is no run of this name.",
        "List the runs with `accord runs list`.",
    ),
    "SERVICE_DOWN": Reason(
        "A service did not answer in time.",
        "Check whether it runs, and look into its log.",
    ),
    "SERVICE_FAILED": Reason(
        "A service ended while it started.",
        "Read the end of its log in the message.",
    ),
    "SERVICE_KEEPS_DYING": Reason(
        "A service was restarted several times and ended each time.",
        "Read the end of its log in the message, and resume the run when the cause is gone.",
    ),
    "SWAP_UNDER_WAY": Reason(
        "Another engine swap of the run is in progress.",
        "Wait until it has finished.",
    ),
    "TOO_FEW_PROMPTS": Reason(
        "One of the splits, training or held-out, has no prompt of the run.",
        "Add prompts; with 40, both splits almost certainly have some.",
    ),
    "UNKNOWN_LAUNCHER": Reason(
        "No launcher of this name is installed.",
        "Correct `--launcher`; the message lists what is available.",
    ),
    "UNSCHEDULABLE": Reason(
        "No node of the cluster can run the pod.",
        "Add a suitable node, or change the requests, the node selector or the tolerations of the template.",
    ),
    "WEIGHTS_GONE": Reason(
        "The weights of the model no longer exist.",
        "Promote another model.",
    ),
}
