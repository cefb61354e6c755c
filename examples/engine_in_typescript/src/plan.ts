// Validates a GenerateRequest and plans it: the samples, their seeds and the sampling parameters.
import { invalid } from "./errors.js";
import { hash64, type Sampling } from "./sampling.js";

// Messages as @grpc/proto-loader returns them; the contract defines their types.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Message = any;

export interface Slot {
  index: number;
  prompt: Message;
  seed: bigint;
}

export function samplingOf(params: Message): Sampling {
  const temperature = params.temperature ?? 1;
  if (params.max_new_tokens < 1) throw invalid("sampling.max_new_tokens", "must be at least 1");
  if (!(temperature >= 0 && Number.isFinite(temperature))) throw invalid("sampling.temperature", "must be 0 or more");
  if ((params.top_p ?? 1) !== 1) throw invalid("sampling.top_p", "this engine has no nucleus sampling; omit it");
  if ((params.top_k ?? 0) < 0) throw invalid("sampling.top_k", "must be 0 (off) or more");
  return { maxNewTokens: params.max_new_tokens, temperature, topK: params.top_k ?? 0 };
}

export function slotsOf(request: Message): Slot[] {
  if (!request.request_id) throw invalid("request_id", "must be set");
  if (!request.prompts.length) throw invalid("prompts", "must not be empty");
  if (!request.sampling) throw invalid("sampling", "must be set");
  if (request.n < 0) throw invalid("n", "must be at least 1");
  const n = request.n || 1;
  const total = request.prompts.length * n;
  const indices: number[] = request.indices.length ? request.indices : [...Array(total).keys()];
  if (indices.some((index) => index < 0 || index >= total)) throw invalid("indices", `must be below ${total}`);
  if (new Set(indices).size !== indices.length) throw invalid("indices", "must not contain an index twice");
  return indices.map((index) => {
    const position = Math.floor(index / n);
    const prompt = request.prompts[position];
    if (!prompt.input) throw invalid(`prompts[${position}]`, "must have a conversation or token_ids");
    if (prompt.input === "token_ids" && !request.tokenizer_fingerprint) {
      throw invalid("tokenizer_fingerprint", "must be set with token_ids");
    }
    const own = prompt.seed !== undefined && prompt._seed !== undefined;
    const seed = own ? BigInt(prompt.seed) : hash64("prompt", request.request_id, BigInt(position));
    return { index, prompt, seed: hash64("sample", seed, BigInt(index % n)) };
  });
}
