// Samples a response, which depends only on the seed; each token has its log-probability under the sampled distribution.
import { createHash } from "node:crypto";
import { END, type Model } from "./model.js";

export interface Sampling {
  maxNewTokens: number;
  temperature: number;
  topK: number;
}

export interface Completion {
  tokens: number[];
  logprobs: number[];
  finish: "FINISH_REASON_STOP" | "FINISH_REASON_LENGTH";
}

function words(...parts: (string | bigint)[]): Buffer {
  const hash = createHash("sha256");
  for (const part of parts) {
    const bytes = Buffer.alloc(8);
    if (typeof part === "bigint") bytes.writeBigUInt64LE(BigInt.asUintN(64, part));
    hash.update(typeof part === "bigint" ? bytes : part);
  }
  return hash.digest();
}

/** 64 bits of a hash over all parts. */
export function hash64(...parts: (string | bigint)[]): bigint {
  return words(...parts).readBigUInt64LE(0);
}

/** log softmax(logits / temperature), cut to the topK likeliest tokens; temperature 0 leaves the logits as they are. */
function logprobsAfter(model: Model, last: number, sampling: Sampling): number[] {
  const size = model.vocabulary.length;
  let row = Array.from(model.logits.subarray(last * size, (last + 1) * size), (x) => x / (sampling.temperature || 1));
  if (sampling.topK > 0 && sampling.topK < size && sampling.temperature > 0) {
    const least = [...row].sort((a, b) => b - a)[sampling.topK - 1];
    row = row.map((x) => (x < least ? -Infinity : x));
  }
  const most = Math.max(...row);
  const norm = most + Math.log(row.reduce((sum, x) => sum + Math.exp(x - most), 0));
  return row.map((x) => Math.min(0, x - norm));
}

function choose(logprobs: number[], uniform: number): number {
  let mass = 0;
  for (let token = 0; token < logprobs.length; token++) {
    mass += Math.exp(logprobs[token]);
    if (uniform < mass) return token;
  }
  return logprobs.indexOf(Math.max(...logprobs)); // rounding left the total slightly below 1
}

export function complete(model: Model, prompt: number[], seed: bigint, sampling: Sampling): Completion {
  const tokens: number[] = [];
  const found: number[] = [];
  let last = prompt[prompt.length - 1];
  while (tokens.length < sampling.maxNewTokens) {
    const logprobs = logprobsAfter(model, last, sampling);
    const uniform = Number(hash64("token", seed, BigInt(tokens.length)) >> 11n) / 2 ** 53;
    last = sampling.temperature > 0 ? choose(logprobs, uniform) : logprobs.indexOf(Math.max(...logprobs));
    tokens.push(last);
    found.push(logprobs[last]);
    if (last === END) return { tokens, logprobs: found, finish: "FINISH_REASON_STOP" };
  }
  return { tokens, logprobs: found, finish: "FINISH_REASON_LENGTH" };
}
