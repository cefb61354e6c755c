// A bigram model over a small vocabulary: the logits of the next token depend on the last token only.
// Its folder has model.safetensors with one tensor, `bigram.logits` [V, V] F32, and vocabulary.json: V strings of one
// character each; the first ends a response.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { status as codes } from "@grpc/grpc-js";
import { EngineError, invalid, precondition } from "./errors.js";

export const END = 0;

export interface WeightsRef {
  uri: string;
  version: string;
  digest: string;
  format: string;
}

export interface Model {
  version: string;
  digest: string;
  vocabulary: string[];
  fingerprint: string;
  logits: Float32Array;
}

interface Entry {
  dtype: string;
  shape: number[];
  data_offsets: [number, number];
}

/** Reads and verifies: weights that differ from the digest are never returned. */
export function load(ref: WeightsRef): Model {
  if (ref.format !== "" && ref.format !== "merged") throw invalid("weights.format", "only `merged` is served");
  if (!ref.uri.startsWith("file://")) throw invalid("weights.uri", "only file:// is served");
  const folder = fileURLToPath(ref.uri);
  let file: Buffer, words: Buffer;
  try {
    file = readFileSync(join(folder, "model.safetensors"));
    words = readFileSync(join(folder, "vocabulary.json"));
  } catch (error) {
    throw new EngineError(codes.NOT_FOUND, "WEIGHTS_NOT_FOUND", `${folder}: ${error}`);
  }
  const data = 8 + Number(file.readBigUInt64LE(0));
  const { __metadata__: _, ...entries } = JSON.parse(file.subarray(8, data).toString()) as Record<string, Entry>;
  const digest = digestOf(entries, file.subarray(data));
  if (digest !== ref.digest) {
    throw precondition("DIGEST_MISMATCH", `the weights have digest ${digest}, expected ${ref.digest}`);
  }
  const [start, end] = entries["bigram.logits"].data_offsets;
  const bytes = file.subarray(data + start, data + end);
  return {
    version: ref.version,
    digest,
    vocabulary: JSON.parse(words.toString()),
    fingerprint: createHash("sha256").update(words).digest("hex"),
    logits: new Float32Array(Uint8Array.from(bytes).buffer),
  };
}

/** SHA-256 over the tensors sorted by name: a JSON line [name, dtype, shape], then the bytes (types/v1/weights.proto). */
function digestOf(entries: Record<string, Entry>, data: Buffer): string {
  const total = createHash("sha256");
  for (const name of Object.keys(entries).sort()) {
    const { dtype, shape, data_offsets } = entries[name];
    total.update(`[${JSON.stringify(name)}, "${dtype}", [${shape.join(", ")}]]\n`);
    total.update(data.subarray(...data_offsets));
  }
  return total.digest("hex");
}

/** Token ids of a text, character by character; characters outside the vocabulary become its last entry. */
export function encode(model: Model, text: string): number[] {
  const unknown = model.vocabulary.length - 1;
  return [...text].map((letter) => {
    const id = model.vocabulary.indexOf(letter);
    return id > END ? id : unknown;
  });
}

export function decode(model: Model, ids: number[]): string {
  return ids.filter((id) => id !== END).map((id) => model.vocabulary[id]).join("");
}
