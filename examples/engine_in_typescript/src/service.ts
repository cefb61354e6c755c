// accord.rollout.v1.RolloutService on the bigram model.
import { randomUUID } from "node:crypto";
import { setImmediate as nextTurn } from "node:timers/promises";
import { status as codes, type ServerWritableStream } from "@grpc/grpc-js";
import { complete } from "./sampling.js";
import { asServiceError, EngineError, invalid, precondition } from "./errors.js";
import { decode, encode, load, type Model } from "./model.js";
import { type Message, samplingOf, slotsOf } from "./plan.js";

const NAME = "typescript-bigram";
const MAX_CONTEXT = 2048;
const MAX_PENDING = 128;

export class Service {
  private model: Model | undefined;
  private prepared = new Map<string, { model: Model; message: Message }>();
  private once = new Map<string, { content: string; answer: Message }>();
  private lease = { holder: "", token: "", expires: 0 };
  private pending = 0;

  async generate(call: ServerWritableStream<Message, Message>): Promise<void> {
    const request = call.request;
    this.checkLease(request.lease_token);
    const slots = slotsOf(request);
    const sampling = samplingOf(request.sampling);
    const model = this.modelFor(request); // kept throughout: an update does not affect running requests
    if (this.pending && this.pending + slots.length > MAX_PENDING) {
      throw new EngineError(codes.RESOURCE_EXHAUSTED, "OVERLOADED", `${this.pending} samples are waiting; retry later`);
    }
    let left = slots.length;
    this.pending += left;
    try {
      for (const slot of slots) {
        await nextTurn(); // other calls run, and a cancellation is noticed
        if (call.cancelled) return;
        const ids = this.promptIds(model, slot.prompt);
        const key = { request_id: request.request_id, index: slot.index };
        if (!ids.length || ids.length + sampling.maxNewTokens > MAX_CONTEXT) {
          const reason = ids.length ? "PROMPT_TOO_LONG" : "EMPTY_PROMPT";
          call.write({ failure: { ...key, failure: { reason, message: `${ids.length} of ${MAX_CONTEXT} tokens` } } });
        } else {
          const completion = complete(model, ids, slot.seed, sampling);
          call.write({
            sample: {
              ...key,
              prompt_id: slot.prompt.prompt_id,
              prompt_token_ids: ids,
              response_token_ids: completion.tokens,
              logprobs: completion.logprobs,
              response_mask: completion.tokens.map(() => true),
              text: decode(model, completion.tokens),
              finish_reason: completion.finish,
              seed: slot.seed.toString(),
              segments: [{ start: 0, version: model.version, digest: model.digest }],
              sampling: { ...request.sampling, temperature: sampling.temperature, top_p: 1, top_k: sampling.topK },
              tokenizer_fingerprint: model.fingerprint,
              prompt: slot.prompt.conversation,
              engine: NAME,
            },
          });
        }
        left -= 1;
        this.pending -= 1;
      }
      call.end();
    } finally {
      this.pending -= left;
    }
  }

  status(): Message {
    return {
      engine: NAME,
      ready: this.model !== undefined,
      version: this.model?.version,
      digest: this.model?.digest,
      tokenizer_fingerprint: this.model?.fingerprint,
      compute_dtype: "float32",
      compute_threads: 1,
      max_context_tokens: MAX_CONTEXT,
      pending_samples: this.pending,
      max_pending_samples: MAX_PENDING,
      prepared: [...this.prepared.values()].map((one) => one.message),
      weight_formats: ["merged"],
      uri_schemes: ["file"],
    };
  }

  updateWeights(request: Message): Message {
    return this.mutate(request, () => {
      const start = performance.now();
      this.model = load(required(request.weights, "weights"));
      const seconds = (performance.now() - start) / 1000;
      return { version: this.model.version, digest: this.model.digest, prepare_seconds: seconds, uri: request.weights.uri };
    });
  }

  prepareWeights(request: Message): Message {
    return this.mutate(request, () => {
      const model = load(required(request.weights, "weights"));
      const message = { version: model.version, digest: model.digest, uri: request.weights.uri };
      this.prepared.set(model.version, { model, message });
      return { prepared: message };
    });
  }

  activateWeights(request: Message): Message {
    return this.mutate(request, () => {
      const ready = this.prepared.get(request.version);
      if (!ready) throw precondition("NOT_PREPARED", `version ${request.version} is not prepared`);
      this.prepared.delete(request.version);
      this.model = ready.model;
      return { version: ready.model.version, digest: ready.model.digest };
    });
  }

  discardWeights(request: Message): Message {
    return this.mutate(request, () => {
      this.prepared.delete(request.version);
      return {};
    });
  }

  acquireLease(request: Message): Message {
    if (!request.holder) throw invalid("holder", "must be set");
    const held = this.lease.expires > Date.now();
    if (held && this.lease.token !== request.token && this.lease.holder !== request.holder) this.checkLease("");
    const seconds = Math.min(600, Number(request.ttl?.seconds ?? 0));
    if (!(seconds > 0)) throw invalid("ttl", "must be more than 0 seconds");
    const token = held && request.token === this.lease.token ? request.token : randomUUID();
    this.lease = { holder: request.holder, token, expires: Date.now() + seconds * 1000 };
    const expire_time = { seconds: Math.floor(this.lease.expires / 1000).toString() };
    return { lease: { holder: request.holder, token, expire_time } };
  }

  releaseLease(request: Message): Message {
    if (request.token === this.lease.token) this.lease.expires = 0;
    return {};
  }

  private mutate(request: Message, change: () => Message): Message {
    if (!request.request_id) throw invalid("request_id", "must be set");
    this.checkLease(request.lease_token);
    const content = JSON.stringify({ ...request, lease_token: "" });
    const known = this.once.get(request.request_id);
    if (known && known.content !== content) {
      throw new EngineError(codes.ALREADY_EXISTS, "REQUEST_ID_REUSED", "the request_id was already used for a different request");
    }
    const answer = known?.answer ?? change();
    this.once.set(request.request_id, { content, answer });
    return answer;
  }

  private modelFor(request: Message): Model {
    if (!this.model) throw precondition("NO_WEIGHTS", "no weights yet; call UpdateWeights first");
    if (request._version && request.version !== this.model.version) {
      throw precondition("VERSION_MISMATCH", `version ${request.version} is not active, ${this.model.version} is`);
    }
    if (request._min_version && BigInt(request.min_version) > BigInt(this.model.version)) {
      throw precondition("VERSION_MISMATCH", `version ${this.model.version} is active, ${request.min_version} or later is required`);
    }
    const fingerprint = request.tokenizer_fingerprint;
    if (fingerprint && fingerprint !== this.model.fingerprint) {
      throw precondition("TOKENIZER_MISMATCH", "the caller's tokenizer is not the model's");
    }
    return this.model;
  }

  private promptIds(model: Model, prompt: Message): number[] {
    if (prompt.input === "token_ids") return prompt.token_ids.ids;
    const text = prompt.conversation.messages.map((one: Message) => `${one.role}: ${one.content}\n`).join("");
    return encode(model, `${text}assistant: `);
  }

  private checkLease(token: string): void {
    if (this.lease.expires > Date.now() && token !== this.lease.token) {
      throw precondition("LEASE_HELD", `leased to ${this.lease.holder}`);
    }
  }
}

function required(value: Message, field: string): Message {
  if (!value) throw invalid(field, "must be set");
  return value;
}

export { asServiceError };
